/*
 * What goes between a program and the server of siov exec: packets over a socket for the rare calls, and a ring in shared memory for
 * what instructions do. src/wire.ts says the same for the server; a test compares the two. Little-endian, natural alignment.
 * SPDX-License-Identifier: MIT
 */
#ifndef SIOV_EXEC_WIRE_H
#define SIOV_EXEC_WIRE_H
#include <stdint.h>

#define SIOV_VERSION 3
#define SIOV_SLOTS 256
#define SIOV_REGIONS 64
#define SIOV_WAIT 512 /* negative, of a read: not now; the handle says when */
#define SIOV_PAYLOAD 4096 /* of one request, at most: a path */
#define SIOV_REVOKED 0x5109 /* value of a queued SIGBUS: memory of mappings that are not live is gone */

enum siov_op {
	SIOV_HELLO = 1, /* args: version; reply: result is the server's pid, arg 0 its descriptor of the ring's memory */
	SIOV_OPEN,	/* payload: path; args: flags; reply: file id, kind ('c': a device, 'a': an attribute), rdev */
	SIOV_SYNC,	/* answered when everything that this process closed or wrote before has happened; file: forget this one, never connected */
	SIOV_IOCTL,	/* args: number, argument; reply: arg 0: id of a file that it gave, of kind 'f', or 0; arg 1: the number that it must have */
	SIOV_MMAP,	/* args: address, length, prot, flags, offset; reply: arg 0: do not inherit; arg 1: so many pieces are more than traps */
	SIOV_MUNMAP,	/* args: address, length */
	SIOV_READ,	/* args: address, length, offset (all ones: the file's position) */
	SIOV_WRITE,	/* the same */
	SIOV_WAKE,	/* not answered: there is something in the ring */
	SIOV_TRAP,	/* args: address of the ucontext_t, faulting address or 0; reply: an answer; registers in the context are as after the instruction;
			   args: of a piece that is to be mapped, how many */
	SIOV_PIECE,	/* args: address in a mapping, number; reply: the server's descriptor of its memory, args: address, length, prot, offset in the memory */
	SIOV_POLL,	/* reply: what poll(2) finds now; the byte that said so has been read */
};

struct siov_request {
	uint32_t op;
	uint32_t bytes; /* of payload behind this */
	uint64_t file;
	uint64_t args[5];
};

struct siov_reply {
	int64_t result; /* or -errno */
	uint64_t args[4];
};

enum siov_kind { SIOV_MOVDIR64B = 1, SIOV_ENQCMD };
enum siov_status { SIOV_EMPTY = 0, SIOV_WAITS, SIOV_ANSWERED };
/* Answers to instructions; NOT_OURS: nothing was done. */
enum siov_answer { SIOV_DONE = 0, SIOV_RETRY, SIOV_BUS_ERROR, SIOV_PROTECTION, SIOV_NOT_OURS };

struct siov_slot {
	uint32_t sequence; /* position: free; position + 1: filled */
	uint32_t kind;
	uint32_t status;
	uint32_t answer;
	uint64_t address;
	uint64_t unused[5];
	uint8_t data[64];
};
/* A mapping of a device. The server writes them; length 0: none. */
struct siov_region {
	uint64_t start, length;
	uint64_t live; /* bit 0: there is something behind it; bit 1: it may be stored to */
};

struct siov_ring {
	uint32_t tail;	   /* next position to fill; many writers */
	uint32_t sleeping; /* the server sleeps: wake it */
	uint64_t traps;	   /* instructions that were carried out */
	uint64_t ns;	   /* that it took */
	uint64_t unused[5];
	struct siov_region regions[SIOV_REGIONS];
	uint8_t unused2[4096 - 64 - 24 * SIOV_REGIONS];
	struct siov_slot slots[SIOV_SLOTS];
};
#endif
