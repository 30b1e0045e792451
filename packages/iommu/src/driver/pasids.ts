/** PASIDs of one kernel instance, 1 to 2^width - 1. 0 is the RID's own. */
import { Errno } from '@siov/layout/uapi';
import { VirtualCommand, type VirtualCommandLayout, virtualCommandLayouts } from '../spec/virtual-commands.js';
import type { Hardware } from './hardware.js';

export class PasidAllocator {
  private readonly limit: number;
  private next = 1;
  private readonly freed: number[] = [];
  private readonly used = new Set<number>();
  constructor(width: number) {
    this.limit = 2 ** width;
  }
  /** A PASID, or -ENOSPC. */
  alloc(): number {
    const pasid = this.freed.pop() ?? (this.next < this.limit ? this.next++ : -Errno.ENOSPC);
    if (pasid > 0) this.used.add(pasid);
    return pasid;
  }
  /** Gives one back; of one that is not handed out nothing happens. */
  free(pasid: number): void {
    if (this.used.delete(pasid)) this.freed.push(pasid);
  }
  get count(): number {
    return this.used.size;
  }
}

/** The PASIDs of a guest whose IOMMU has virtual commands: the hypervisor gives them out. VT-d, "Virtual Command Register". */
export class VirtualPasids {
  readonly #hardware: Hardware;
  readonly #at: (typeof virtualCommandLayouts)[VirtualCommandLayout];
  readonly #used = new Set<number>();

  constructor(hardware: Hardware, layout: VirtualCommandLayout) {
    this.#hardware = hardware;
    this.#at = virtualCommandLayouts[layout];
  }
  /** The unit says that PASIDs can be asked for. */
  get available(): boolean {
    return (this.#hardware.readAt(this.#at.capability) & 1) === 1;
  }
  alloc(): number {
    const { error, result } = this.#run(VirtualCommand.allocPasid, 0);
    if (error) return -Errno.ENOSPC;
    this.#used.add(result);
    return result;
  }
  free(pasid: number): void {
    if (this.#used.delete(pasid)) this.#run(VirtualCommand.freePasid, pasid);
  }
  get count(): number {
    return this.#used.size;
  }

  #run(code: number, operand: number): { readonly error: boolean; readonly result: number } {
    const { command, response, operand: shift, result, statusBits } = this.#at;
    const value = code + operand * 2 ** shift;
    this.#hardware.writeAt(command + 4, Math.floor(value / 2 ** 32));
    this.#hardware.writeAt(command, value % 2 ** 32);
    const words = (): number => this.#hardware.readAt(response + 4) * 2 ** 32 + this.#hardware.readAt(response);
    // Bit 0: still in progress.
    this.#hardware.clock.wait(() => words() % 2 === 0);
    const answer = words();
    return { error: Math.floor(answer / 2) % 2 ** statusBits !== 0, result: Math.floor(answer / 2 ** result) % 2 ** 20 };
  }
}
