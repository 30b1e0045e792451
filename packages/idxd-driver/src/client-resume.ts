/**
 * How each operation goes on after a partial completion: what is done is taken off its operands, and what it carried along comes from the
 * record. DSA specification, "Page Fault Handling" ("Partial Descriptor Completion").
 */
import { ApplyDeltaDescriptor, DIF_BLOCKS, DIF_BYTES, DifCheckDescriptor, DifFlag, Flag, Opcode } from '@siov/idxd-device/spec';

const SOURCE = 4;
const DESTINATION = 6;
const SIZE = 8;
const DESTINATION2 = 10;
const SEED = 10;
/** Words of the tags in DIF descriptors: the source's, the destination's; in the record they begin at word 4. */
const SOURCE_TAGS = 12;
const DESTINATION_TAGS = 14;
const RECORD_TAGS = 4;
const DESCRIPTOR_BYTES = 64;

type GoOn = (w: Uint32Array, d: number, done: number, record: Uint32Array) => void;

/** Both operands, and the size. */
const move: GoOn = (w, d, done) => {
  forward(w, d + SOURCE, done);
  forward(w, d + DESTINATION, done);
  w[d + SIZE] = w[d + SIZE]! - done;
};
const source: GoOn = (w, d, done) => {
  forward(w, d + SOURCE, done);
  w[d + SIZE] = w[d + SIZE]! - done;
};
const destination: GoOn = (w, d, done) => {
  forward(w, d + DESTINATION, done);
  w[d + SIZE] = w[d + SIZE]! - done;
};
/** The value so far is the seed of the rest, wherever the first one was. */
const crc =
  (operands: GoOn): GoOn =>
  (w, d, done, record) => {
    operands(w, d, done, record);
    if (done === 0) return;
    w[d + 1] = w[d + 1]! & ~Flag.crcSeedInMemory;
    w[d + SEED] = record[4]!;
  };
/** `tagged`: the source has fields; `data`, `fields`: what is written of a block. */
const dif =
  (tagged: boolean, data: boolean, fields: boolean): GoOn =>
  (w, d, done, record) => {
    const block = DIF_BLOCKS[DifCheckDescriptor.get.difFlags(w, d) & DifFlag.block]!;
    const blocks = done / (tagged ? block + DIF_BYTES : block);
    forward(w, d + SOURCE, done);
    if (data || fields) forward(w, d + DESTINATION, blocks * ((data ? block : 0) + (fields ? DIF_BYTES : 0)));
    w[d + SIZE] = w[d + SIZE]! - done;
    if (tagged) for (let i = 0; i < 2; i++) w[d + SOURCE_TAGS + i] = record[RECORD_TAGS + i]!;
    if (fields) for (let i = 0; i < 2; i++) w[d + DESTINATION_TAGS + i] = record[RECORD_TAGS + 2 + i]!;
  };

const rows: Readonly<Record<number, GoOn>> = {
  [Opcode.memmove]: move,
  [Opcode.compare]: move,
  [Opcode.fill](w, d, done, record) {
    turn(w, d + SOURCE, done & 7);
    destination(w, d, done, record);
  },
  [Opcode.comparePattern](w, d, done, record) {
    turn(w, d + DESTINATION, done & 7);
    source(w, d, done, record);
  },
  [Opcode.dualcast](w, d, done, record) {
    move(w, d, done, record);
    forward(w, d + DESTINATION2, done);
  },
  [Opcode.crc]: crc(source),
  [Opcode.copyCrc]: crc(move),
  [Opcode.translationFetch]: source,
  [Opcode.cacheFlush]: destination,
  // Its record has no place to go on at, since records are aligned to eight bytes and entries have ten. It is made anew, which does no harm.
  [Opcode.createDelta]() {},
  [Opcode.applyDelta](w, d, done) {
    forward(w, d + SOURCE, done);
    ApplyDeltaDescriptor.set.deltaSize(w, d, ApplyDeltaDescriptor.get.deltaSize(w, d) - done);
  },
  [Opcode.difCheck]: dif(true, false, false),
  [Opcode.difInsert]: dif(false, true, true),
  [Opcode.difStrip]: dif(true, true, false),
  [Opcode.difUpdate]: dif(true, true, true),
  [Opcode.dixGenerate]: dif(false, false, true),
  // The members before the one that could not be fetched are done.
  [Opcode.batch](w, d, done) {
    forward(w, d + SOURCE, done * DESCRIPTOR_BYTES);
    w[d + SIZE] = w[d + SIZE]! - done;
  },
};

/** Turns the descriptor at word `d` of `w` into one for what its record says is left. */
export function goOn(w: Uint32Array, d: number, record: Uint32Array): void {
  const done = record[1]!;
  // Backward moves completed their tail: the operands stay, the size shrinks.
  if ((record[0]! >>> 8) & 1 && w[d + 1]! >>> 24 === Opcode.memmove) w[d + SIZE] = w[d + SIZE]! - done;
  else rows[w[d + 1]! >>> 24]?.(w, d, done, record);
}

/** Adds to a 64-bit address in two words. */
function forward(w: Uint32Array, at: number, bytes: number): void {
  const low = w[at]! + bytes;
  w[at] = low;
  if (low > 0xffff_ffff) w[at + 1] = w[at + 1]! + 1;
}
/** Rotates an 8-byte pattern so that byte `by` comes first. */
function turn(w: Uint32Array, at: number, by: number): void {
  for (let i = 0; i < by; i++) {
    const low = w[at]!;
    const high = w[at + 1]!;
    w[at] = (low >>> 8) | ((high & 0xff) << 24);
    w[at + 1] = (high >>> 8) | ((low & 0xff) << 24);
  }
}
