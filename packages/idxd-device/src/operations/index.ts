/**
 * All operations in one table by operation code. DSA specification, "Descriptor and Operation Details". One row an operation: the flags that
 * are legal, what it reads and writes (for the time it takes), its own rules, and the step. The loop that runs them is the engine's.
 */
import type { Family } from '../family.js';
import { descriptors, RECORD_BYTES } from '../spec/descriptor.js';
import { compares } from './compare.js';
import { controls } from './control.js';
import { crcs } from './crc.js';
import { deltas } from './delta.js';
import { difs } from './dif.js';
import { fetches } from './fetch.js';
import { fills } from './fill.js';
import { moves } from './move.js';
import type { Operations } from './operation.js';

export { legalFlags, type Operation, type Operations, type Stream } from './operation.js';
export { readbackDestination, readbackDrain } from './readback.js';

const operations: Operations = { ...controls, ...moves, ...fills, ...compares, ...crcs, ...deltas, ...difs, ...fetches };
export const dsa: Family = { recordBytes: RECORD_BYTES, extraWords: 0, descriptors, operations: () => operations };
