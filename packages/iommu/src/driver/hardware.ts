/**
 * The unit as its driver sees it: registers, and memory for tables and queues. Commands are one bit a write, and done when GSTS says so.
 * VT-d, "Global Command Register", "Global Status Register".
 */
import { MemoryWords } from '../memory.js';
import type { Frames, Mmio, PhysicalMap, Waiter } from '../ports.js';
import { Capability, ExtendedCapability } from '../spec/capabilities.js';
import { GlobalStatus, registers } from '../spec/registers.js';

export type Command = keyof typeof GlobalStatus.get;
const bitOf = (command: Command): number => {
  const word = new Uint32Array(1);
  GlobalStatus.set[command](word, 0, 1);
  return word[0]!;
};
/** GSTS bits that are one-shot commands in GCMD: never repeated. */
const ONE_SHOT = bitOf('interruptTable') | bitOf('writeBuffer') | bitOf('faultLog') | bitOf('rootTable');

export class Hardware {
  // fixed
  readonly capability = new Uint32Array(2);
  readonly extended = new Uint32Array(2);
  // ports
  readonly frames: Frames;
  readonly clock: Waiter;
  private readonly registers: Mmio;
  private readonly memory: MemoryWords;

  constructor(ports: { registers: Mmio; memory: PhysicalMap; frames: Frames; clock: Waiter }) {
    this.registers = ports.registers;
    this.memory = new MemoryWords(ports.memory);
    this.frames = ports.frames;
    this.clock = ports.clock;
    for (let i = 0; i < 2; i++) {
      this.capability[i] = this.registers.read(registers.capability.offset + 4 * i, 4);
      this.extended[i] = this.registers.read(registers.extendedCapability.offset + 4 * i, 4);
    }
  }

  has(name: keyof typeof ExtendedCapability.get): boolean {
    return ExtendedCapability.get[name](this.extended, 0) !== 0;
  }
  get cachingMode(): boolean {
    return Capability.get.cachingMode(this.capability, 0) === 1;
  }

  read(register: keyof typeof registers, word = 0): number {
    return this.registers.read(registers[register].offset + 4 * word, 4);
  }
  write(register: keyof typeof registers, value: number, word = 0): void {
    this.registers.write(registers[register].offset + 4 * word, 4, value >>> 0);
  }
  /** Reads and writes where no table says where: the fault records. */
  readAt(offset: number): number {
    return this.registers.read(offset, 4);
  }
  writeAt(offset: number, value: number): void {
    this.registers.write(offset, 4, value >>> 0);
  }
  /** An address register: upper half first, since the lower one may act. `flags`: the bits below the page. */
  writeAddress(register: keyof typeof registers, frame: number, flags: number): void {
    this.write(register, frame >>> 20, 1);
    this.write(register, (frame << 12) | flags);
  }

  /** Gives one command and waits for its status. False when the unit never says so. */
  command(name: Command, on = true): boolean {
    const bit = bitOf(name);
    const status = this.read('globalStatus') & ~ONE_SHOT;
    this.write('globalCommand', on ? status | bit : status & ~bit);
    const done = (): boolean => ((this.read('globalStatus') & bit) !== 0) === on;
    return done() || this.clock.wait(done);
  }

  /** Zeroed frames for a table, or -1. */
  alloc(order = 0): number {
    return this.frames.alloc(order);
  }
  free(frame: number, order = 0): void {
    this.frames.free(frame, order);
  }
  /** The words that hold a frame; `at` is its first one. A frame that is not memory is a fault of who built this machine. */
  at(frame: number): number {
    const at = this.memory.at(frame);
    if (at < 0) throw new RangeError(`frames: page frame ${frame} of the allocator is not RAM in the memory map`);
    return at;
  }
  /** Of the last `at`. */
  get words(): Uint32Array {
    return this.memory.words;
  }
}
