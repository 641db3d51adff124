"""Measures the contrast of every visible piece of text as rendered: text over all grounds that lie under it."""

LOWEST = 4.5

MEASURE = r"""() => {
  const parse = (text) => {
    const n = text.match(/[\d.]+/g).map(Number);
    const scale = text.startsWith("color(") ? 255 : 1;
    return { r: n[0] * scale, g: n[1] * scale, b: n[2] * scale, a: n[3] === undefined ? 1 : n[3] };
  };
  const light = ({ r, g, b }) => {
    const part = (x) => ((x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const mix = (top, under, a) => top * a + under * (1 - a);
  const over = (t, u) => ({ r: mix(t.r, u.r, t.a), g: mix(t.g, u.g, t.a), b: mix(t.b, u.b, t.a), a: 1 });
  const barUnder = (el) => {  // text in a drawing: the rectangle that its middle lies in
    const box = el.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
    let hit = null;
    for (const rect of el.closest("svg").querySelectorAll("rect")) {
      const q = rect.getBoundingClientRect();
      if (x > q.x && x < q.right && y > q.y && y < q.bottom) hit = rect;
    }
    return hit ? parse(getComputedStyle(hit).fill) : null;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const el = node.parentElement;
    const seen = node.textContent.trim() && el.closest(".kvmlab") && el.getClientRects().length;
    if (!seen || el.closest(".sr, option, [hidden]")) continue;
    const style = getComputedStyle(el), drawing = el instanceof SVGElement;
    const grounds = [];
    if (drawing && el.closest("svg").querySelector("rect")) { const bar = barUnder(el); if (bar) grounds.push(bar); }
    let opacity = 1;
    for (let at = el; at; at = at.parentElement) {
      opacity *= Number(getComputedStyle(at).opacity);
      const ground = parse(getComputedStyle(at).backgroundColor);
      if (ground.a) { grounds.push(ground); if (ground.a === 1) break; }
    }
    let ground = { r: 255, g: 255, b: 255, a: 1 };
    for (const g of grounds.reverse()) ground = over(g, ground);
    const ink = parse(drawing ? style.fill : style.color);
    ink.a *= opacity;
    const a = light(over(ink, ground)), b = light(ground);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const place = String(el.className.baseVal ?? el.className);
    found.push([ratio, node.textContent.trim().slice(0, 30), place, parseFloat(style.fontSize)]);
  }
  found.sort((p, q) => p[0] - q[0]);
  return [found.length, found.slice(0, 5), Math.min(...found.map((f) => f[3]))];
}"""
