# From the first instruction of real mode to 64-bit code with its own page tables and interrupts.
#
# Five acts, each announced on the console:
#   1. real        a greeting with REP OUTSB
#   2. protected   GDT, CR0.PE, a far jump; the page tables are built here
#   3. long        PAE, CR3, EFER.LME, CR0.PG, a far jump into a 64-bit segment
#   4. interrupts  three from outside: a timer (0x20) twice, a key (0x21) whose handler reads port 0x60
#   5. paging      a window at 1 GiB whose table is empty: each first touch is a #PF, and the handler maps a page.
#                  Then the guest edits its own tables: two pages change places, one becomes read-only and back.
#
# Memory:  0x1000 this image    0x7c00 real-mode stack, down    0x10000 PML4, PDPT, PD, PT    0x14000 PD, PT of the window
#          0x20000 IDT          0x30000 stack, down             0x40000 pages given out by the #PF handler
#
#: about: real mode, protected mode, long mode; own page tables and IDT; interrupts from outside; demand paging
#: bits: 16
#: org: 0x1000
#: console "1 real mode\n"
#: console "2 protected mode\n"
#: console "3 long mode\n"
#: console "4 tick\nkey a\ntick\n"
#: console "5 pages 4, faults 5\n"
#: inject: hlt 0x20, hlt 0x21, hlt 0x20
#: exit io in port=0x60 size=1 reply=0x61
#: expect rax=0x600d rbx=0x2222222244443333 r12=2 r13=0x61 r14=5
#: bytes FRAMES = 11 11 11 11 11 11 11 11
#: bytes FRAMES+0x2000 = 33 33 44 44 33 33 33 33
#: gap: interrupts and IRETQ in long mode

        .equ    COM1, 0x3f8
        .equ    KEYBOARD, 0x60
        .equ    TIMER_VECTOR, 0x20
        .equ    KEY_VECTOR, 0x21

        .equ    PML4, 0x10000
        .equ    PDPT, 0x11000
        .equ    PD, 0x12000
        .equ    PT, 0x13000             # the first 2 MiB, page by page
        .equ    WINDOW_PD, 0x14000
        .equ    WINDOW_PT, 0x15000      # empty at first: demand paging fills it
        .equ    IDT, 0x20000
        .equ    STACK_TOP, 0x30000
        .equ    FRAMES, 0x40000
        .equ    WINDOW, 0x40000000      # linear address 1 GiB: PML4[0], PDPT[1], PD[0], PT[n]

        .equ    PRESENT, 1
        .equ    WRITE, 2
        .equ    USER, 4

# --- 1. Real mode ----------------------------------------------------------------------------------------------------

_start: cli
        cld
        mov     si, offset text_real
        mov     cx, offset TEXT_REAL_SIZE
        mov     dx, COM1
        rep outsb                       # one exit for the whole string

        lgdtd   [gdt_pointer]
        mov     eax, cr0
        or      al, 1                   # CR0.PE
        mov     cr0, eax
        ljmpd   0x08, offset protected  # CS becomes a 32-bit code segment

# --- 2. Protected mode -----------------------------------------------------------------------------------------------

        .code32
protected:
        mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     esp, STACK_TOP
        mov     esi, offset text_protected
        call    print32

        xor     eax, eax                # six empty tables
        mov     edi, PML4
        mov     ecx, 6 * 1024
        rep stosd
        mov     dword ptr [PML4], PDPT + 3              # each entry: address, present, writable
        mov     dword ptr [PDPT], PD + 3
        mov     dword ptr [PDPT + 8], WINDOW_PD + 3
        mov     dword ptr [PD], PT + 3
        mov     dword ptr [WINDOW_PD], WINDOW_PT + 3
        mov     edi, PT                                 # linear = physical for 0 to 2 MiB
        mov     eax, 3
fill_pt:
        mov     [edi], eax
        add     edi, 8
        add     eax, 0x1000
        cmp     edi, PT + 0x1000
        jne     fill_pt

        mov     eax, cr4
        or      eax, 0x20               # CR4.PAE
        mov     cr4, eax
        mov     eax, PML4
        mov     cr3, eax
        mov     ecx, 0xc0000080         # EFER
        rdmsr
        or      eax, 0x100              # LME: long mode as soon as paging is on
        wrmsr
        mov     eax, cr0
        or      eax, 0x80010000         # CR0.PG and CR0.WP
        mov     cr0, eax                # from here every address is walked through four tables
        ljmp    0x18, offset long_mode  # CS.L = 1: 64-bit code

print32:
        mov     dx, COM1
1:      lodsb
        test    al, al
        jz      2f
        out     dx, al
        jmp     1b
2:      ret

# --- 3. Long mode ----------------------------------------------------------------------------------------------------

        .code64
long_mode:
        mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     rsp, STACK_TOP
        lea     rsi, [rip + text_long]
        call    print

        mov     edi, IDT                # 256 gates, all empty
        xor     eax, eax
        mov     ecx, 512
        rep stosq
        mov     edi, IDT + 14 * 16
        lea     rax, [rip + on_page_fault]
        call    set_gate
        mov     edi, IDT + TIMER_VECTOR * 16
        lea     rax, [rip + on_timer]
        call    set_gate
        mov     edi, IDT + KEY_VECTOR * 16
        lea     rax, [rip + on_key]
        call    set_gate
        lidt    [rip + idt_pointer]

# --- 4. Interrupts ---------------------------------------------------------------------------------------------------

        xor     r12d, r12d              # ticks
        xor     r13d, r13d              # the last key
        xor     r14d, r14d              # page faults
        lea     rsi, [rip + text_interrupts]
        call    print
wait_for_it:
        sti                             # takes effect after the next instruction: no interrupt slips between
        hlt
        cli
        cmp     r12d, 2                 # until two ticks and a key have come
        jb      wait_for_it
        test    r13d, r13d
        jz      wait_for_it

# --- 5. Paging -------------------------------------------------------------------------------------------------------

        mov     rdi, WINDOW             # four pages, none of them there yet
        mov     rax, 0x1111111111111111
        mov     rdx, rax
        mov     ecx, 4
touch:  mov     [rdi], rax              # first touch: #PF, error code 2 (write, not present)
        mov     [rdi + 8], rax          # second touch: no fault
        add     rax, rdx
        add     rdi, 0x1000
        dec     ecx
        jnz     touch

        mov     rax, [WINDOW_PT]        # pages 0 and 1 change places: two stores to a page table
        mov     rdx, [WINDOW_PT + 8]
        mov     [WINDOW_PT], rdx
        mov     [WINDOW_PT + 8], rax
        mov     rdi, WINDOW
        invlpg  [rdi]
        invlpg  [rdi + 0x1000]
        mov     ebx, [rdi]              # page 0 now shows 0x22222222
        shl     rbx, 32
        cmp     dword ptr [rdi + 0x1000], 0x11111111    # page 1 shows what page 0 was
        jne     failed

        and     qword ptr [WINDOW_PT + 16], ~WRITE      # page 2 becomes read-only
        invlpg  [rdi + 0x2000]
        mov     eax, [rdi + 0x2000]     # reading is allowed: 0x33333333
        mov     dword ptr [rdi + 0x2000], 0x44443333    # writing: #PF, error code 3; the handler allows it again
        mov     eax, [rdi + 0x2000]
        or      rbx, rax                # 0x22222222 from the exchange, 0x44443333 from the allowed store

        lea     rsi, [rip + text_pages]
        call    print
        lea     eax, [r14 + '0']
        out     dx, al
        mov     al, 10
        out     dx, al
        mov     eax, 0x600d
        hlt
failed: mov     eax, 0xbad
        hlt

# --- Handlers --------------------------------------------------------------------------------------------------------

on_timer:
        push    rax
        push    rdx
        push    rsi
        inc     r12
        lea     rsi, [rip + text_tick]
        call    print
        pop     rsi
        pop     rdx
        pop     rax
        iretq

on_key: push    rax
        push    rdx
        push    rsi
        in      al, KEYBOARD            # user space answers with a key
        movzx   r13d, al
        lea     rsi, [rip + text_key]
        call    print
        mov     al, r13b
        out     dx, al
        mov     al, 10
        out     dx, al
        pop     rsi
        pop     rdx
        pop     rax
        iretq

# Not present: give the page a frame. Present: the store was refused, so allow it.
on_page_fault:
        push    rax
        push    rcx
        push    rdx
        inc     r14
        mov     rax, cr2
        mov     ecx, eax
        shr     ecx, 12
        and     ecx, 511                # index in WINDOW_PT
        test    qword ptr [rsp + 24], PRESENT           # the error code
        jnz     allow
        mov     edx, ecx
        shl     edx, 12
        add     edx, FRAMES + PRESENT + WRITE
        mov     [WINDOW_PT + rcx*8], rdx                # a new entry needs no INVLPG
        jmp     1f
allow:  or      qword ptr [WINDOW_PT + rcx*8], WRITE
        invlpg  [rax]
1:      pop     rdx
        pop     rcx
        pop     rax
        add     rsp, 8                  # the error code
        iretq

# set_gate: RDI = the gate, RAX = the handler; 64-bit interrupt gate, ring 0
set_gate:
        mov     [rdi], ax
        mov     word ptr [rdi + 2], 0x18
        mov     word ptr [rdi + 4], 0x8e00
        shr     rax, 16
        mov     [rdi + 6], ax
        shr     rax, 16
        mov     [rdi + 8], eax
        ret

# print: RSI = text, ends with 0; leaves DX = COM1
print:  mov     dx, COM1
1:      lodsb
        test    al, al
        jz      2f
        out     dx, al
        jmp     1b
2:      ret

# --- Tables and texts ------------------------------------------------------------------------------------------------

        .balign 8, 0
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      # 08: 32-bit code
        .quad   0x00cf93000000ffff      # 10: data
        .quad   0x00af9b000000ffff      # 18: 64-bit code
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt
idt_pointer:
        .word   256 * 16 - 1
        .quad   IDT

text_real:
        .ascii  "1 real mode\n"
        .equ    TEXT_REAL_SIZE, . - text_real
text_protected:
        .asciz  "2 protected mode\n"
text_long:
        .asciz  "3 long mode\n"
text_interrupts:
        .asciz  "4 "
text_tick:
        .asciz  "tick\n"
text_key:
        .asciz  "key "
text_pages:
        .asciz  "5 pages 4, faults "
