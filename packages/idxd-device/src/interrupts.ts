/** Interrupts: the misc vector 0, and completion interrupts by MSI-X or IMS with their permission check. DSA specification, "Interrupts". */
import { Event, MessageStore } from '@siov/layout/events';
import type { PciFunction } from '@siov/pci-core';
import type { Trace, Upstream } from './ports.js';
import type { Profile } from './profiles.js';
import type { Registers } from './registers.js';
import * as spec from './spec/index.js';
import { unconnected } from './unconnected.js';

const ims = spec.ImsEntry;
const permission = spec.MsixPermission.get;

export class Interrupts {
  // fixed
  readonly #registers: Registers;
  readonly #fn: PciFunction;
  readonly #imsEntries: number;
  /** Which handles software holds, by table; none where handles are not asked for. */
  readonly #held: readonly [msix: Uint8Array, ims: Uint8Array] | undefined;
  readonly #limit: number;
  // ports
  readonly #trace: Trace | undefined;
  upstream: Upstream = unconnected;
  // state
  msixSent = 0;
  imsSent = 0;
  #handles = 0;

  constructor(registers: Registers, fn: PciFunction, profile: Profile, trace: Trace | undefined) {
    this.#registers = registers;
    this.#fn = fn;
    this.#imsEntries = profile.imsEntries;
    this.#held = profile.commandCapabilities ? [new Uint8Array(profile.msixVectors), new Uint8Array(profile.imsEntries)] : undefined;
    this.#limit = profile.interruptHandles ?? profile.msixVectors + profile.imsEntries;
    this.#trace = trace;
    fn.msix!.send = (address, data) => {
      this.msixSent++;
      this.#send(address, data, MessageStore.msix);
    };
  }

  /** Sets a cause bit and raises vector 0. */
  misc(cause: spec.MiscCause): void {
    spec.IntCause.set[cause](this.#registers.words, this.#registers.at('intCause'), 1);
    this.#fn.msix!.fire(0);
  }

  /** Whether descriptors of `pasid` (-1: none) may raise this handle of the table of the portal that they came by. */
  allowed(handle: number, byIms: number, pasid: number): boolean {
    const { words } = this.#registers;
    const table = byIms ? ims.get : permission;
    if (handle >= (byIms ? this.#imsEntries : this.#fn.msix!.vectors)) return false;
    if (this.#held && !this.#held[byIms ? 1 : 0][handle]) return false;
    const at = this.#registers.at(byIms ? 'ims' : 'msixPermission', handle);
    if (table.ignore(words, at)) return true;
    // unconfirmed: an entry without a PASID serves descriptors without one only.
    return table.pasidEnable(words, at) ? table.pasid(words, at) === pasid : pasid < 0;
  }

  /** unconfirmed: that an entry which has a handle is given the same one again. */
  request(index: number, byIms: number): spec.CommandStatus {
    const held = this.#held![byIms ? 1 : 0];
    if (index >= held.length) return spec.CommandStatus.interruptTableIndex;
    if (held[index]) return spec.CommandStatus.success;
    if (this.#handles >= this.#limit) return spec.CommandStatus.noInterruptHandle;
    held[index] = 1;
    this.#handles++;
    return spec.CommandStatus.success;
  }
  release(handle: number, byIms: number): spec.CommandStatus {
    const held = this.#held![byIms ? 1 : 0];
    if (!held[handle]) return spec.CommandStatus.interruptHandleNotAllocated;
    held[handle] = 0;
    this.#handles--;
    return spec.CommandStatus.success;
  }
  /** Nobody holds a handle any more. */
  reset(): void {
    this.#handles = 0;
    for (const held of this.#held ?? []) held.fill(0);
  }

  completion(handle: number, byIms: number): void {
    if (!byIms) {
      this.#fn.msix!.fire(handle);
      return;
    }
    const { words } = this.#registers;
    const at = this.#registers.at('ims', handle);
    if (ims.get.masked(words, at)) ims.set.pending(words, at, 1);
    else this.#sendIms(at);
  }

  /** Software wrote a control word of the table: a pending message goes out when the entry is unmasked. */
  imsWritten(index: number): void {
    const { words } = this.#registers;
    const at = this.#registers.at('ims', index);
    if (!ims.get.pending(words, at) || ims.get.masked(words, at)) return;
    ims.set.pending(words, at, 0);
    this.#sendIms(at);
  }

  #sendIms(at: number): void {
    const { words } = this.#registers;
    this.imsSent++;
    this.#send(ims.get.addressLow(words, at) | 0, ims.get.data(words, at) | 0, MessageStore.ims);
  }
  #send(address: number, data: number, store: number): void {
    if (!this.#fn.busMaster) return; // messages are memory writes
    this.#trace?.emit(Event.message, this.#fn.requesterId, address, data, store);
    this.upstream.message(address, data);
  }
}
