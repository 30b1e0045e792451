/**
 * Completion interrupts: an entry of the MSI-X or the interrupt message storage table with its permission, and the handle that descriptors
 * name it by. Linux drivers/dma/idxd/device.c, idxd_device_request_int_handle; irq.c, idxd_int_handle_revoke.
 */
import * as spec from '@siov/idxd-device/spec';
import type { Tables } from './capabilities.js';
import type { Hardware } from './hardware.js';
import type { Interrupts, Irq } from './ports.js';

/** A completion interrupt of a queue for one PASID: put `handle` into descriptors and submit through the half of the portal that `ims` names. */
export interface CompletionInterrupt {
  /** -1 when the device took it away and has none to give. */
  readonly handle: number;
  readonly ims: boolean;
  /** The device revoked its handles and this one was requested anew: descriptors with the old one end with 0x19. */
  onRevoked: (() => void) | undefined;
  free(): void;
}
/** Interrupt domains over the function's two stores. */
export interface Stores {
  readonly msix: ReturnType<Interrupts['msix']>;
  readonly ims: ReturnType<NonNullable<Interrupts['ims']>> | undefined;
}
interface Held extends CompletionInterrupt {
  handle: number;
  readonly index: number;
}

export class CompletionInterrupts {
  // fixed
  readonly #hardware: Hardware;
  readonly #at: Tables;
  readonly #stores: Stores;
  readonly #requests: boolean;
  readonly #releases: boolean;
  /** Runs a command: its status, and what it answered. */
  readonly #command: (code: number, operand: number, byInterrupt?: boolean) => { readonly status: number; readonly result: number };
  // state
  readonly #vectors = new Set<number>();
  readonly #held = new Set<Held>();

  constructor(
    hardware: Hardware,
    at: Tables,
    stores: Stores,
    commands: number,
    command: (code: number, operand: number, byInterrupt?: boolean) => { readonly status: number; readonly result: number },
  ) {
    this.#hardware = hardware;
    this.#at = at;
    this.#stores = stores;
    this.#requests = ((commands >>> spec.Command.requestInterruptHandle) & 1) === 1;
    this.#releases = ((commands >>> spec.Command.releaseInterruptHandle) & 1) === 1;
    this.#command = command;
  }

  /**
   * For descriptors of `pasid` (-1: none) on queue `wq`: the queue's own MSI-X vector while that is free, else an IMS slot; or the store that
   * is asked for. Undefined when there is none left.
   */
  alloc(wq: number, pasid: number, handler: () => void, store?: 'msix' | 'ims'): CompletionInterrupt | undefined {
    const vector = wq + 1;
    if (store !== 'ims' && !this.#vectors.has(vector)) {
      const irq = this.#stores.msix.alloc(handler, vector);
      if (irq) {
        const permission = new Uint32Array(2);
        spec.MsixPermission.set.pasidEnable(permission, 0, pasid < 0 ? 0 : 1);
        spec.MsixPermission.set.pasid(permission, 0, Math.max(pasid, 0));
        const at = this.#at.msixPermission + vector * spec.MsixPermission.bytes;
        this.#hardware.write(at, permission);
        this.#vectors.add(vector);
        const interrupt = this.#hold(vector, false, () => {
          this.#hardware.write(at, [0, 0]);
          irq.free();
          this.#vectors.delete(vector);
        });
        if (interrupt || store === 'msix') return interrupt;
      }
    }
    if (store === 'msix') return undefined;
    const slot: Irq | undefined = this.#stores.ims?.allocFor(handler, pasid < 0 ? undefined : pasid);
    return slot && this.#hold(slot.index, true, () => slot.free());
  }

  /** INTCAUSE said that handles were revoked: all are requested anew, then who holds one is told. */
  revoked(): void {
    if (!this.#requests) return;
    for (const held of this.#held) held.handle = this.#handle(held.index, held.ims);
    for (const held of [...this.#held]) held.onRevoked?.();
  }
  /** The vectors in use: their permissions are lost in a reset. */
  get vectors(): ReadonlySet<number> {
    return this.#vectors;
  }
  /** The device was reset: handles that it gave are nobody's. */
  restore(): void {
    if (this.#requests) for (const held of this.#held) held.handle = this.#handle(held.index, held.ims);
  }

  #hold(index: number, ims: boolean, free: () => void): CompletionInterrupt | undefined {
    const handle = this.#handle(index, ims);
    if (handle < 0) {
      free();
      return undefined;
    }
    const held: Held = {
      handle,
      index,
      ims,
      onRevoked: undefined,
      free: () => {
        if (!this.#held.delete(held)) return;
        if (this.#releases && held.handle >= 0)
          this.#command(spec.Command.releaseInterruptHandle, spec.handleOperand(held.handle, ims ? 'ims' : 'msix'), false);
        free();
      },
    };
    this.#held.add(held);
    return held;
  }
  /** A device that has the command says which handle a table entry has, or that it has none left; else it is the entry's index. */
  #handle(index: number, ims: boolean): number {
    if (!this.#requests) return index;
    const { status, result } = this.#command(spec.Command.requestInterruptHandle, spec.handleOperand(index, ims ? 'ims' : 'msix'));
    return status === 0 ? result : -1;
  }
}
