/** A driver of the fewest steps for DSA behind a socket: enough to submit descriptors and see their records. */
import { Command, Flag, GroupCfg, Opcode, Portal, Register, WqCfg } from '@siov/idxd-device/spec';
import type { VfioUserClient } from '../src/index.js';

const BAR0 = 0;
const BAR2 = 2;
const CONFIG = 7;
const bytesOf = (...words: number[]): Uint8Array => new Uint8Array(Uint32Array.from(words).buffer);
const u32 = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);

export class TinyDriver {
  readonly #client: VfioUserClient;
  #slot = 0;

  constructor(client: VfioUserClient) {
    this.#client = client;
  }
  read(offset: number): number {
    return u32(this.#client.regionRead(BAR0, offset, 4));
  }
  write(offset: number, ...words: number[]): void {
    for (const [i, word] of words.entries()) this.#client.regionWrite(BAR0, offset + i * 4, bytesOf(word));
  }
  /** A command; its error code. */
  command(code: number, operand = 0, interrupt = 0): number {
    this.write(Register.cmd, ((interrupt << 31) | (code << 20) | operand) >>> 0);
    for (let i = 0; i < 1000; i++) {
      const status = this.read(Register.cmdSts);
      if (status >>> 31 === 0) return status & 0xff;
    }
    throw new Error(`command ${code} does not end`);
  }
  /** Bus master on, queue 0 dedicated with 16 entries behind engine 0. */
  start(): void {
    this.#client.regionWrite(CONFIG, 4, Uint8Array.of(0x06, 0x00));
    this.command(Command.resetDevice);
    const offsets = this.read(Register.offsets);
    const groups = (offsets & 0xffff) * 0x100;
    const queues = (offsets >>> 16) * 0x100;
    const group = new Uint32Array(GroupCfg.bytes / 4);
    GroupCfg.set.wqs(group, 0, 1);
    GroupCfg.set.engines(group, 0, 1);
    this.write(groups, ...group);
    const wq = new Uint32Array(WqCfg.bytes / 4);
    WqCfg.set.size(wq, 0, 16);
    WqCfg.set.mode(wq, 0, 1);
    WqCfg.set.priority(wq, 0, 1);
    WqCfg.set.maxTransferShift(wq, 0, 31);
    WqCfg.set.maxBatchShift(wq, 0, 10);
    this.write(queues, ...wq);
    const errors = [this.command(Command.enableDevice), this.command(Command.enableWq)];
    if (errors.some((error) => error !== 0)) throw new Error(`commands ended with ${errors.map((e) => `0x${e.toString(16)}`)}`);
  }
  /** A descriptor in eight stores of 8 bytes, posted, as a guest's processor makes them. */
  submit(words: Uint32Array): void {
    const at = Portal.limitedMsix + (this.#slot++ % 64) * 64;
    for (let i = 0; i < 8; i++) this.#client.regionPost(BAR2, at + i * 8, bytesOf(words[i * 2]!, words[i * 2 + 1]!));
  }
  descriptor(
    opcode: number,
    o: { source?: number; destination?: number; size?: number; record: number; flags?: number; handle?: number },
  ): Uint32Array {
    const d = new Uint32Array(16);
    d[1] = (opcode << 24) | (o.flags ?? Flag.recordAddressValid | Flag.requestRecord | (opcode === Opcode.memmove ? Flag.cacheControl : 0));
    const put = (at: number, value = 0): void => {
      d[at] = value;
      d[at + 1] = value / 2 ** 32;
    };
    put(2, o.record);
    put(4, o.source);
    put(6, o.destination);
    d[8] = o.size ?? 0;
    d[9] = o.handle ?? 0;
    return d;
  }
}
