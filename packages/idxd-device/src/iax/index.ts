/**
 * The Intel In-Memory Analytics Accelerator (IAX, IAA) on the same device model: `sprIax` and `iax2` are profiles for `IdxdDevice`, and this entry
 * point is the only one that brings their operations. Sources: `spec/iax.ts`.
 */
import type { Family } from '../family.js';
import type { Op } from '../op.js';
import { controls } from '../operations/control.js';
import { fetches } from '../operations/fetch.js';
import { moves } from '../operations/move.js';
import { moveFlags, type Operation, type Operations, type Stream } from '../operations/operation.js';
import { type Profile, sprDsa } from '../profiles.js';
import { Flag, Opcode } from '../spec/descriptor.js';
import { IaaCap, IaxFlag, IaxOpcode, IaxStatus, iaxDescriptors } from '../spec/iax.js';
import { checkCompress, stepCompress } from './compress.js';
import { checkDecompress, stepDecompress } from './decompress.js';
import { checkFilter, stepFilter } from './filters.js';
import { checkCrc64, checkZero, stepCrc64, stepZero } from './streams.js';
import { maxDestination, source2Size, type Work, Workshop } from './work.js';

/** What a profile of this family says besides. */
export interface IaxProfile extends Profile {
  /**
   * How far back a match may begin, in bytes: what compression uses, and what a stream to be decompressed may. unconfirmed for 1.0: Linux and Intel
   * QPL speak of a history of 4 KiB.
   */
  readonly history: number;
  /**
   * A run of code lengths does not go on from literals into distances, as RFC 1951 allows. Default false. unconfirmed: the error codes speak of both
   * separately.
   */
  readonly separateLengths?: boolean;
}

const streams = moveFlags & ~(Flag.fence | Flag.strictOrdering);
const source2 = IaxFlag.readAecs | IaxFlag.readSource2 | IaxFlag.source2SteeringTag | IaxFlag.aecsSecond | Flag.trafficClass3;
const coded = streams | source2 | IaxFlag.writeAecs | IaxFlag.crcRfc3720;
const WORDS_OF_EXTRA = 6;

function operations(profile: Profile): Operations {
  const { history = 4096, separateLengths = false } = profile as Partial<IaxProfile>;
  const capabilities = Uint32Array.of(profile.iaaCapabilities ?? 0, 0);
  const version2 = profile.version >= 0x200;
  const headerGeneration = IaaCap.get.headerGeneration(capabilities, 0) === 1;
  const forceArray = IaaCap.get.forceArray(capabilities, 0) === 1;
  const workshop = new Workshop(history, separateLengths);
  const row = (
    name: string,
    flags: number,
    stream: Stream,
    writes: number,
    check: (op: Op) => number,
    run: (work: Work, io: Parameters<Operation['step']>[0], op: Op) => number,
  ): Operation => ({
    name,
    flags,
    reads: 1,
    writes,
    stream,
    sized: true,
    // The queue's limit is that of the other sizes too: accel-config (test/configs/2g2q_user_2.conf) raises it to the largest destination of its tests.
    // unconfirmed: for source 2.
    check: (op, _overlapping, most) => (writes > 0 && (maxDestination(op) > most || source2Size(op) > most) ? IaxStatus.size : check(op)),
    step: (io, op) => workshop.step(io, op, run),
  });
  const filter = (name: string): Operation =>
    row(name, streams | source2 | IaxFlag.crcRfc3720, 'filter', 1, (op) => checkFilter(op, version2, forceArray), stepFilter);
  const zero = (name: string): Operation => row(name, streams, 'filter', 1, checkZero, stepZero);
  const { [Opcode.nop]: nop, [Opcode.drain]: drain } = controls;
  const { [Opcode.memmove]: memmove } = moves;
  const { [Opcode.translationFetch]: fetch } = fetches;
  return {
    // Without batches there are no fences.
    [IaxOpcode.nop]: { ...nop!, flags: 0 },
    [IaxOpcode.drain]: drain!,
    [IaxOpcode.memmove]: { ...memmove!, flags: moveFlags & ~Flag.fence },
    [IaxOpcode.translationFetch]: { ...fetch!, flags: fetch!.flags & ~Flag.fence },
    [IaxOpcode.decompress]: row(
      'decompress',
      coded | IaxFlag.writeAecsOnOverflow,
      'decompress',
      1,
      (op) => checkDecompress(op, version2),
      stepDecompress,
    ),
    [IaxOpcode.compress]: row('compress', coded, 'compress', 1, (op) => checkCompress(op, headerGeneration), stepCompress),
    [IaxOpcode.crc64]: row('crc64', Flag.blockOnFault | Flag.trafficClass1, 'crc', 0, checkCrc64, stepCrc64),
    [IaxOpcode.zeroDecompress32]: zero('zero-decompress-32'),
    [IaxOpcode.zeroDecompress16]: zero('zero-decompress-16'),
    [IaxOpcode.zeroDecompress8]: zero('zero-decompress-8'),
    [IaxOpcode.zeroCompress32]: zero('zero-compress-32'),
    [IaxOpcode.zeroCompress16]: zero('zero-compress-16'),
    [IaxOpcode.zeroCompress8]: zero('zero-compress-8'),
    [IaxOpcode.scan]: filter('scan'),
    [IaxOpcode.setMembership]: filter('set-membership'),
    [IaxOpcode.extract]: filter('extract'),
    [IaxOpcode.select]: filter('select'),
    [IaxOpcode.rleBurst]: filter('rle-burst'),
    [IaxOpcode.findUnique]: filter('find-unique'),
    [IaxOpcode.expand]: filter('expand'),
  };
}
export const iax: Family = { recordBytes: 64, extraWords: WORDS_OF_EXTRA, descriptors: iaxDescriptors, operations };

const iax1 = Object.values(IaxOpcode).filter(
  (code) => code !== IaxOpcode.translationFetch && code !== IaxOpcode.zeroCompress8 && code !== IaxOpcode.zeroDecompress8,
);
/**
 * Sapphire Rapids' analytics accelerator: the shape of its DSA with 8 engines, no batches and no overlapping copies. Capabilities as in published
 * accel-config samples (GENCAP 0x71f10901f0105). unconfirmed: what bits 63:40 of GENCAP say.
 */
export const sprIax: IaxProfile = {
  ...sprDsa,
  name: 'iax-spr',
  family: iax,
  deviceId: 0x0cfe,
  engines: 8,
  descriptorsPerEngine: 16,
  capabilityHigh: 0x71f,
  maxBatchShift: 0,
  overlappingCopy: false,
  cacheControlFlush: false,
  operations: iax1,
  history: 4096,
};

/**
 * IAX 2.0: elements of 8 bits in zero compression, translation fetch, headers that the device makes, arrays by force, a choice of operations by
 * queue, interrupt handles that are requested, an event log. unconfirmed: its device id and the numbers of its parts. It leaves out AECS of format 2,
 * dictionaries, early abort, nested compression and ciphers.
 */
export const iax2: IaxProfile = {
  ...sprIax,
  name: 'iax-2.0',
  deviceId: 0x1216,
  version: 0x200,
  operations: Object.values(IaxOpcode),
  operationConfig: true,
  commandCapabilities: true,
  eventLogSize: 2,
  iaaCapabilities: (() => {
    const words = new Uint32Array(2);
    IaaCap.set.forceArray(words, 0, 1);
    IaaCap.set.headerGeneration(words, 0, 1);
    return words[0]!;
  })(),
};
