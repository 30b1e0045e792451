/*
 * What goes between a program and the server of siov exec: packets over a socket for the rare calls, and a ring in shared memory for
 * what instructions do. src/wire.ts says the same for the server; a test compares the two. Little-endian, natural alignment.
 * SPDX-License-Identifier: MIT
 */
#ifndef SIOV_EXEC_WIRE_H
#define SIOV_EXEC_WIRE_H
#include <stdint.h>

#define SIOV_VERSION 1
#define SIOV_SLOTS 256
#define SIOV_REGIONS 64
#define SIOV_PAYLOAD 4096 /* of one request, at most: a path */

enum siov_op {
	SIOV_HELLO = 1, /* args: version, ticks a millisecond; reply: ring number, server's pid */
	SIOV_OPEN,	/* payload: path; args: flags; reply: file id, kind ('c' or 'a'), rdev */
	SIOV_SYNC,	/* answered when everything that this process closed or wrote before has happened; file: forget this one, never connected */
	SIOV_IOCTL,	/* args: number, argument */
	SIOV_MMAP,	/* args: address, length, prot, flags, offset; reply: result is the region's number; arg 0: do not inherit */
	SIOV_MUNMAP,	/* args: address, length */
	SIOV_READ,	/* args: address, length, offset (all ones: the file's position) */
	SIOV_WRITE,	/* the same */
	SIOV_WAKE,	/* not answered: there is something in the ring */
};

struct siov_request {
	uint32_t op;
	uint32_t bytes; /* of payload behind this */
	uint64_t file;
	uint64_t args[5];
};

struct siov_reply {
	int64_t result; /* or -errno */
	uint64_t args[3];
};

enum siov_kind { SIOV_MOVDIR64B = 1, SIOV_ENQCMD, SIOV_LOAD, SIOV_STORE };
enum siov_status { SIOV_EMPTY = 0, SIOV_WAITS, SIOV_ANSWERED };
/* Answers of ENQCMD and LOAD. */
enum siov_answer { SIOV_DONE = 0, SIOV_RETRY = 1, SIOV_BUS_ERROR = 2, SIOV_PROTECTION = 3 };

struct siov_slot {
	uint32_t sequence; /* position: free; position + 1: filled */
	uint32_t kind;
	uint32_t status;
	uint32_t answer;
	uint64_t address;
	uint32_t width; /* of LOAD and STORE, in bytes */
	uint32_t unused;
	uint64_t value; /* of LOAD and STORE */
	uint64_t unused2[3];
	uint8_t data[64];
};

struct siov_ring {
	uint32_t tail;	   /* next position to fill; many writers */
	uint32_t sleeping; /* the server sleeps: wake it */
	uint64_t traps;	   /* instructions that were carried out */
	uint64_t ticks;	   /* of the time stamp counter, spent in that */
	uint64_t unused[5];
	uint32_t live[SIOV_REGIONS]; /* by region: 1 while there is something behind it */
	uint8_t unused2[4096 - 64 - 4 * SIOV_REGIONS];
	struct siov_slot slots[SIOV_SLOTS];
};
#endif
