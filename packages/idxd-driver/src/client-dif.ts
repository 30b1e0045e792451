/** The data integrity operands of a descriptor by names. DSA specification, "DIF Insert" and its relatives. */
import {
  DIF_BLOCKS,
  DifCheckDescriptor,
  DifDestination,
  DifFlag,
  DifInsertDescriptor,
  DifSource,
  DifUpdateDescriptor,
  Opcode,
} from '@siov/idxd-device/spec';

/** Application and reference tag of the first block; by default both are 0, the reference tag counts up and the application tag does not. */
interface DifTags {
  readonly reference?: number;
  readonly referenceFixed?: boolean;
  readonly application?: number;
  /** Bits that are not compared, or written as 0. */
  readonly applicationMask?: number;
  readonly applicationIncrements?: boolean;
}
export interface Dif {
  /** Bytes of a block without its field. */
  readonly block: (typeof DIF_BLOCKS)[number];
  /** The guard's CRC begins with ones; and is inverted at the end. */
  readonly seedOnes?: boolean;
  readonly invert?: boolean;
  /** Of check, strip and update; `skip` are further bits of `DifSource`: what is not checked. */
  readonly source?: DifTags & { readonly skip?: number };
  /** Of insert, update and DIX generate; `pass` are the bits of `DifDestination` for what an update leaves as it is. */
  readonly destination?: DifTags & { readonly pass?: number };
}

export function putDif(w: Uint32Array, d: number, opcode: number, { block, seedOnes, invert, source = {}, destination = {} }: Dif): void {
  const size = DIF_BLOCKS.indexOf(block);
  if (size < 0) throw new RangeError(`Dif: block is ${DIF_BLOCKS.join(', ')}, not ${block}`);
  const { set } = DifUpdateDescriptor;
  set.difFlags(w, d, size | (seedOnes ? DifFlag.seedOnes : 0) | (invert ? DifFlag.invert : 0));
  if (opcode === Opcode.difCheck || opcode === Opcode.difStrip || opcode === Opcode.difUpdate) {
    const flags = (source.referenceFixed ? DifSource.refTagFixed : 0) | (source.applicationIncrements ? DifSource.appTagIncrements : 0);
    DifCheckDescriptor.set.sourceFlags(w, d, flags | (source.skip ?? 0));
    set.sourceRefTag(w, d, source.reference ?? 0);
    set.sourceAppMask(w, d, source.applicationMask ?? 0);
    set.sourceAppTag(w, d, source.application ?? 0);
  }
  if (opcode === Opcode.difCheck || opcode === Opcode.difStrip) return;
  if (opcode === Opcode.difUpdate) {
    const flags =
      (destination.referenceFixed ? DifDestination.refTagFixed : 0) | (destination.applicationIncrements ? DifDestination.appTagIncrements : 0);
    // The field begins at bit 3 of the flags.
    set.destinationFlags(w, d, (flags | (destination.pass ?? 0)) >>> 3);
  } else {
    DifInsertDescriptor.set.refTagFixed(w, d, destination.referenceFixed ? 1 : 0);
    DifInsertDescriptor.set.appTagIncrements(w, d, destination.applicationIncrements ? 1 : 0);
  }
  set.destinationRefTag(w, d, destination.reference ?? 0);
  set.destinationAppMask(w, d, destination.applicationMask ?? 0);
  set.destinationAppTag(w, d, destination.application ?? 0);
}
