/**
 * The interrupt remapping domain: an IRTE per interrupt, verified against its requester. VT-d, "Interrupt Remapping"; Linux, the
 * INTEL-IR domain. On a unit without remapping the messages go straight to the vector.
 */
import type { IrqParent, IrqParentHandle, Vectors } from '../ports.js';
import { InterruptEntry } from '../spec/structures.js';
import type { Hardware } from './hardware.js';
import type { DriverQueue } from './queue.js';

const MESSAGE_ADDRESS = 0xfee0_0000;
const ENTRY_WORDS = 4;
/** The table has 2^this pages of 256 entries, fewer where memory is short. */
const TABLE_ORDER = 4;
const { set, is } = InterruptEntry;

export class RemappingDomain implements IrqParent {
  private readonly hardware: Hardware;
  private readonly queue: DriverQueue;
  private readonly vectors: Vectors;
  private frame = -1;
  private order = TABLE_ORDER;
  private next = 0;
  private readonly freed: number[] = [];

  constructor(hardware: Hardware, queue: DriverQueue, vectors: Vectors) {
    this.hardware = hardware;
    this.queue = queue;
    this.vectors = vectors;
  }

  /** Sets the table and switches remapping on. False: the unit has none, or there is no memory; messages are then not remapped. */
  enable(): boolean {
    const { hardware } = this;
    if (!hardware.has('interruptRemapping')) return false;
    for (; this.order >= 0; this.order--) if ((this.frame = hardware.alloc(this.order)) >= 0) break;
    if (this.frame < 0) return false;
    // 2^(S + 1) entries of 16 bytes: a page holds 2^8.
    hardware.writeAddress('interruptTable', this.frame, this.order + 7);
    hardware.command('interruptTable');
    this.queue.interruptEntry();
    this.queue.flush();
    return hardware.command('interruptRemapping');
  }

  alloc(requesterId: number, handler: (vector: number) => void): IrqParentHandle | undefined {
    const { vectors } = this;
    const vector = vectors.allocVector();
    if (vector < 0) return undefined;
    const index = this.frame < 0 ? -1 : this.take();
    if (this.frame >= 0 && index < 0) {
      vectors.freeVector?.(vector);
      return undefined;
    }
    vectors.install(vector, handler);
    if (index >= 0) this.write(index, requesterId, vector);
    let live = true;
    const free = (): void => {
      if (!live) return;
      live = false;
      if (index >= 0) this.clear(index);
      vectors.remove?.(vector);
      vectors.freeVector?.(vector);
    };
    if (index < 0) return { address: MESSAGE_ADDRESS, data: vector, free };
    // Remappable format, SHV = 1 with subhandle 0, as Linux has it.
    const address = (MESSAGE_ADDRESS | ((index & 0x7fff) << 5) | 0x18 | ((index >>> 15) << 2)) >>> 0;
    return { address, data: 0, free };
  }

  private take(): number {
    return this.freed.pop() ?? (this.next < 256 << this.order ? this.next++ : -1);
  }
  private write(index: number, requesterId: number, vector: number): void {
    const at = this.at(index);
    const { words } = this.hardware;
    words.fill(0, at, at + ENTRY_WORDS);
    set.vector(words, at, vector);
    set.deliveryMode(words, at, is.deliveryMode.fixed);
    set.sourceId(words, at, requesterId);
    set.sourceValidation(words, at, is.sourceValidation.sourceId);
    set.present(words, at, 1);
    this.flush(index);
  }
  private clear(index: number): void {
    const at = this.at(index);
    this.hardware.words.fill(0, at, at + ENTRY_WORDS);
    this.flush(index);
    this.freed.push(index);
  }
  private flush(index: number): void {
    this.queue.interruptEntry(index);
    this.queue.flush();
  }
  private at(index: number): number {
    return this.hardware.at(this.frame + (index >>> 8)) + (index & 255) * ENTRY_WORDS;
  }
}
