// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * MOVDIR64B for a processor that does not have it.
 *
 * QEMU's own processor (TCG) raises #UD for MOVDIR64B, with which the idxd driver submits descriptors. This module hears of the exception before
 * the kernel gives up on it, carries the instruction out as eight stores of 8 bytes that ascend from the destination, and goes on behind it. The
 * kernel also has to believe that the processor has the instruction: setcpuid=movdir64b on its command line.
 *
 * Only kernel mode, and only the form with 64-bit addresses: 66 [REX] 0F 38 F8 /r with a memory operand. Everything else stays an invalid opcode.
 * Encoding: Intel SDM volume 2, "MOVDIR64B" and section 2.1 (ModR/M and SIB).
 */
#include <linux/io.h>
#include <linux/kdebug.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <asm/trapnr.h>

static unsigned long carried_out;
module_param(carried_out, ulong, 0444);
MODULE_PARM_DESC(carried_out, "instructions carried out so far");
static unsigned long declined;
module_param(declined, ulong, 0444);
MODULE_PARM_DESC(declined, "invalid opcodes in the kernel that were something else, or MOVDIR64B with a bad operand");

/* A descriptor's eight stores stay together, whichever processor they come from. */
static DEFINE_RAW_SPINLOCK(store_lock);

struct operands {
	unsigned long destination;
	unsigned long source;
	unsigned int length; /* of the instruction, in bytes */
};

static unsigned long register_of(const struct pt_regs *regs, unsigned int number)
{
	switch (number) {
	case 0: return regs->ax;
	case 1: return regs->cx;
	case 2: return regs->dx;
	case 3: return regs->bx;
	case 4: return regs->sp;
	case 5: return regs->bp;
	case 6: return regs->si;
	case 7: return regs->di;
	case 8: return regs->r8;
	case 9: return regs->r9;
	case 10: return regs->r10;
	case 11: return regs->r11;
	case 12: return regs->r12;
	case 13: return regs->r13;
	case 14: return regs->r14;
	default: return regs->r15;
	}
}

/* The longest form: prefix, REX, three bytes of opcode, ModR/M, SIB, 32 bits of displacement. */
#define LONGEST 11

static bool decode(const struct pt_regs *regs, struct operands *out)
{
	u8 code[LONGEST];
	unsigned int have, at = 0, rex = 0, mod, rm, reg;
	unsigned long address = 0;
	long displacement = 0;

	/* Byte by byte: the last instruction of a page may have nothing behind it. */
	for (have = 0; have < LONGEST; have++)
		if (copy_from_kernel_nofault(&code[have], (const u8 *)regs->ip + have, 1))
			break;
	if (have < 6 || code[at++] != 0x66)
		return false;
	if ((code[at] & 0xf0) == 0x40)
		rex = code[at++];
	if (code[at] != 0x0f || code[at + 1] != 0x38 || code[at + 2] != 0xf8)
		return false;
	at += 3;
	if (at >= have)
		return false;
	mod = code[at] >> 6;
	reg = ((code[at] >> 3) & 7) | ((rex & 4) << 1);
	rm = code[at++] & 7;
	if (mod == 3)
		return false;

	if (rm == 4) { /* a SIB byte follows */
		unsigned int base, index, scale;

		if (at >= have)
			return false;
		scale = code[at] >> 6;
		index = ((code[at] >> 3) & 7) | ((rex & 2) << 2);
		base = code[at++] & 7;
		if (index != 4)
			address += register_of(regs, index) << scale;
		if (base == 5 && mod == 0)
			mod = 4; /* no base, 32 bits of displacement */
		else
			address += register_of(regs, base | ((rex & 1) << 3));
	} else if (rm == 5 && mod == 0) {
		mod = 5; /* relative to the next instruction */
	} else {
		address += register_of(regs, rm | ((rex & 1) << 3));
	}

	if (mod == 1) {
		if (at + 1 > have)
			return false;
		displacement = (s8)code[at++];
	} else if (mod != 0) {
		s32 wide;

		if (at + 4 > have)
			return false;
		memcpy(&wide, &code[at], 4);
		displacement = wide;
		at += 4;
	}
	out->length = at;
	out->source = address + displacement + (mod == 5 ? regs->ip + at : 0);
	out->destination = register_of(regs, reg);
	return true;
}

static int on_trap(struct notifier_block *block, unsigned long event, void *data)
{
	struct die_args *trap = data;
	struct operands operands;
	unsigned long flags;
	u64 words[8];
	int i;

	if (event != DIE_TRAP || trap->trapnr != X86_TRAP_UD || user_mode(trap->regs))
		return NOTIFY_DONE;
	/* The destination has to be aligned to 64 bytes; the source need not be. */
	if (!decode(trap->regs, &operands) || (operands.destination & 63) ||
	    copy_from_kernel_nofault(words, (const void *)operands.source, sizeof(words))) {
		declined++;
		return NOTIFY_DONE;
	}
	raw_spin_lock_irqsave(&store_lock, flags);
	for (i = 0; i < 8; i++)
		writeq(words[i], (void __iomem *)operands.destination + 8 * i);
	carried_out++;
	raw_spin_unlock_irqrestore(&store_lock, flags);
	trap->regs->ip += operands.length;
	return NOTIFY_STOP;
}

static struct notifier_block block = { .notifier_call = on_trap };

/* Each form of addressing once, with the assembler's own encoding, into memory. Sources lie 8 bytes apart, so that a wrong address shows. */
static u64 near_source[8];
#define TRY(instruction, offset)                                                                                                  \
	do {                                                                                                                      \
		memset(to, 0, 64);                                                                                                \
		asm volatile(instruction : : "a"(to), "d"(from), "c"(3L), [r8] "r"(r8), [r13] "r"(r13) : "memory");               \
		if (memcmp(to, (u8 *)from + (offset), 64)) {                                                                      \
			pr_err("self-test: wrong result of %s\n", instruction);                                                   \
			return -EIO;                                                                                              \
		}                                                                                                                 \
	} while (0)

static int try_forms(u64 *to, u64 *from)
{
	register u64 *r8 asm("r8") = from;
	register u64 *r13 asm("r13") = to;

	TRY("movdir64b (%%rdx), %%rax", 0);
	TRY("movdir64b 16(%%rdx), %%rax", 16);
	TRY("movdir64b 1024(%%rdx), %%rax", 1024);
	TRY("movdir64b (%%rdx,%%rcx,8), %%rax", 24);
	TRY("movdir64b -8(%%r8,%%rcx,8), %%rax", 16);
	TRY("movdir64b 256(%%r8), %[r13]", 256);
	memcpy(near_source, from + 5, 64);
	TRY("movdir64b near_source(%%rip), %%rax", 40);
	return 0;
}

static int __init begin(void)
{
	u64 *memory = kmalloc(4096, GFP_KERNEL); /* aligned to its size */
	int error, i;

	if (!memory)
		return -ENOMEM;
	for (i = 0; i < 512; i++)
		memory[i] = 0x0101010101010101ULL * (i & 0xff) + i;
	register_die_notifier(&block);
	error = try_forms(memory + 448, memory);
	if (error)
		unregister_die_notifier(&block);
	else
		pr_info("self-test passed: %lu forms\n", carried_out);
	carried_out = 0;
	kfree(memory);
	return error;
}

static void __exit end(void)
{
	unregister_die_notifier(&block);
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("Carries out MOVDIR64B as eight stores where the processor does not have it");
MODULE_LICENSE("Dual MIT/GPL");
