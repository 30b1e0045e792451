/** The virtual command registers behind a front: a guest's requests for PASIDs reach the hypervisor's hooks. VT-d, "Virtual Command Register". */
import { VirtualCommand, type VirtualCommandLayout, VirtualCommandStatus, virtualCommandLayouts } from '../spec/virtual-commands.js';
import type { FrontHooks } from './front.js';

/** VCCAP: PASIDs can be allocated. */
const PASID_SUPPORT = 1;
const PASID_BITS = 20;
/** Bytes of the register space that they have. */
const SPACE = { from: 0xe00, to: 0xe40 } as const;

export class VirtualCommands {
  // fixed
  readonly #layout: VirtualCommandLayout;
  readonly #hooks: FrontHooks;
  // state
  readonly #command = new Uint32Array(2);
  readonly #response = new Uint32Array(2);

  constructor(layout: VirtualCommandLayout, hooks: FrontHooks) {
    this.#layout = layout;
    this.#hooks = hooks;
  }

  static has(offset: number): boolean {
    return offset >= SPACE.from && offset < SPACE.to;
  }
  /** Dwords; other widths read 0 and write nothing. */
  read(offset: number, width: number): number {
    const at = virtualCommandLayouts[this.#layout];
    if (width !== 4) return 0;
    if (offset === at.capability) return this.#hooks.allocPasid ? PASID_SUPPORT : 0;
    if (offset >> 3 === at.command >> 3) return this.#command[(offset >> 2) & 1]!;
    return offset >> 3 === at.response >> 3 ? this.#response[(offset >> 2) & 1]! : 0;
  }
  /** The command runs when its low dword is written; a high dword is written before it. */
  write(offset: number, width: number, value: number): void {
    const at = virtualCommandLayouts[this.#layout];
    if (width !== 4 || offset >> 3 !== at.command >> 3) return;
    this.#command[(offset >> 2) & 1] = value;
    if (offset === at.command) this.#run();
  }
  reset(): void {
    this.#command.fill(0);
    this.#response.fill(0);
  }

  #run(): void {
    const { operand, result } = virtualCommandLayouts[this.#layout];
    const status = VirtualCommandStatus[this.#layout];
    const code = this.#command[0]! & 0xff;
    const value = fieldAt(this.#command, operand, PASID_BITS);
    this.#response.fill(0);
    if (code === VirtualCommand.allocPasid) {
      const pasid = this.#hooks.allocPasid?.() ?? -1;
      if (pasid < 0) this.#response[0] = status.noPasid << 1;
      else putAt(this.#response, result, pasid);
    } else if (code !== VirtualCommand.freePasid || this.#hooks.freePasid?.(value) !== true) this.#response[0] = status.invalidPasid << 1;
  }
}

const fieldAt = (words: Uint32Array, low: number, bits: number): number => Math.floor((words[1]! * 2 ** 32 + words[0]!) / 2 ** low) % 2 ** bits;
function putAt(words: Uint32Array, low: number, value: number): void {
  words[0] = words[0]! | (value << low);
  words[1] = words[1]! | (low === 0 ? 0 : value >>> (32 - low));
}
