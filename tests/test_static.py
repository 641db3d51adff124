"""``kvmlab static``: widget views go where HTML is beside them, and nothing else is touched."""

import json

import pytest

from kvmlab import static
from kvmlab.errors import BadArgument

VIEW = {"model_id": "m1", "version_major": 2, "version_minor": 0}


def notebook(*outputs):
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3"},
            "widgets": {static.STATE: {"state": {"m1": {}}}},
        },
        "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "x"},
            {
                "cell_type": "code",
                "id": "b",
                "metadata": {},
                "source": "vm.bench()",
                "execution_count": None,
                "outputs": list(outputs),
            },
        ],
    }


def output(**data):
    return {"output_type": "display_data", "metadata": {}, "data": data}


def test_the_view_goes_and_the_html_stays():
    book = notebook(output(**{static.VIEW: VIEW, "text/html": "<p>x</p>", "text/plain": "x"}))
    assert static.make_static(book) == 1
    assert book["cells"][1]["outputs"][0]["data"] == {"text/html": "<p>x</p>", "text/plain": "x"}
    assert "widgets" not in book["metadata"] and "kernelspec" in book["metadata"]


def test_a_view_without_html_keeps_itself_and_its_state():
    book = notebook(
        output(**{static.VIEW: VIEW, "text/plain": "slider"}), output(**{static.VIEW: VIEW, "text/html": "<p>x</p>"})
    )
    assert static.make_static(book) == 1
    assert static.VIEW in book["cells"][1]["outputs"][0]["data"]
    assert static.STATE in book["metadata"]["widgets"]


def test_files_are_rewritten_in_place_or_elsewhere(tmp_path):
    file = tmp_path / "lab.ipynb"
    file.write_text(json.dumps(notebook(output(**{static.VIEW: VIEW, "text/html": "<p>é</p>"}))))
    assert static.rewrite(file, tmp_path / "out.ipynb") == 1
    assert static.VIEW in file.read_text()
    assert static.rewrite(file) == 1
    assert static.VIEW not in file.read_text() and "é" in file.read_text(encoding="utf-8")
    assert static.rewrite(file) == 0


@pytest.mark.parametrize("text", ["not json", "[]", '{"nbformat": 3}'])
def test_what_is_no_notebook_is_refused(tmp_path, text):
    file = tmp_path / "x.ipynb"
    file.write_text(text)
    with pytest.raises(BadArgument, match="no notebook"):
        static.rewrite(file)
    with pytest.raises(BadArgument, match="no file"):
        static.rewrite(tmp_path / "missing.ipynb")


def test_the_bench_has_html_that_stands_alone():
    widgets = pytest.importorskip("kvmlab.widgets")
    data, _ = widgets.bench()._repr_mimebundle_()
    book = notebook(output(**data))
    assert static.make_static(book) == 1
    assert "Nothing is loaded yet" in book["cells"][1]["outputs"][0]["data"]["text/html"]


def test_nbconvert_takes_it_as_a_step():
    exporters = pytest.importorskip("nbconvert.exporters")
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.from_dict(notebook({**output(**{static.VIEW: VIEW, "text/html": "<p>stands alone</p>"})}))
    exporter = exporters.HTMLExporter(preprocessors=[static.StaticPreprocessor])
    page, _ = exporter.from_notebook_node(book)
    assert "stands alone" in page and '"model_id"' not in page
