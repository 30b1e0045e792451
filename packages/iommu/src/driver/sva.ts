/**
 * Shared virtual addressing: a process's mm bound to devices under one PASID. The mm's notifier invalidates; its end clears the PASID
 * entries; the PASID goes back at the last unbind. Linux, iommu_sva_bind_device.
 */
import { PageResponse } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import type { Mm } from '../ports.js';
import { type DomainContext, SvaDomain } from './domains.js';
import type { PasidAllocator, VirtualPasids } from './pasids.js';
import type { SvaHandle } from './types.js';

/** What SVA needs of the driver. */
export interface Attacher {
  attachPasid(requesterId: number, pasid: number, domain: SvaDomain): number;
  detachPasid(requesterId: number, pasid: number): void;
}
interface Binding {
  readonly mm: Mm;
  readonly pasid: number;
  readonly domain: SvaDomain;
  /** References by requester id. */
  readonly devices: Map<number, number>;
  released: boolean;
  unsubscribe(): void;
}

export class SvaBindings {
  private readonly context: DomainContext;
  private readonly pasids: PasidAllocator | VirtualPasids;
  private readonly attacher: Attacher;
  private readonly byMm = new Map<Mm, Binding>();
  private readonly byPasid = new Map<number, Binding>();

  constructor(context: DomainContext, pasids: PasidAllocator | VirtualPasids, attacher: Attacher) {
    this.context = context;
    this.pasids = pasids;
    this.attacher = attacher;
  }

  /** Binds an mm to a device; a second bind of the same two takes a reference. */
  bind(requesterId: number, mm: Mm): SvaHandle | number {
    const known = this.byMm.get(mm);
    const binding = known ?? this.create(mm);
    if (typeof binding === 'number') return binding;
    if (binding.released) return -Errno.EINVAL;
    const references = binding.devices.get(requesterId) ?? 0;
    if (references === 0) {
      const error = this.attacher.attachPasid(requesterId, binding.pasid, binding.domain);
      if (error) {
        if (!known) this.remove(binding);
        return error;
      }
    }
    binding.devices.set(requesterId, references + 1);
    let bound = true;
    return {
      pasid: binding.pasid,
      unbind: () => {
        if (bound) this.unbind(binding, requesterId);
        bound = false;
      },
    };
  }

  /** The mm's verdict on a page request, as a response code. Undefined: the PASID is not one of a bound mm. */
  handleFault(requesterId: number, pasid: number, hi: number, lo: number, access: number): number | undefined {
    const binding = this.byPasid.get(pasid);
    if (!binding?.devices.has(requesterId)) return undefined;
    if (binding.released || binding.mm.handleFault(hi, lo, access) !== 0) return PageResponse.invalidRequest;
    return PageResponse.success;
  }

  private create(mm: Mm): Binding | number {
    const pasid = this.pasids.alloc();
    if (pasid < 0) return pasid;
    const domain = new SvaDomain(this.context, mm);
    const binding: Binding = { mm, pasid, domain, devices: new Map(), released: false, unsubscribe: () => {} };
    binding.unsubscribe = mm.subscribe({
      invalidate: (start, end) => domain.invalidateRange(start, end),
      release: () => {
        binding.released = true;
        for (const requesterId of binding.devices.keys()) this.attacher.detachPasid(requesterId, pasid);
        if (binding.devices.size === 0) this.remove(binding);
      },
    });
    this.byMm.set(mm, binding);
    this.byPasid.set(pasid, binding);
    return binding;
  }

  private unbind(binding: Binding, requesterId: number): void {
    const references = (binding.devices.get(requesterId) ?? 0) - 1;
    if (references > 0) {
      binding.devices.set(requesterId, references);
      return;
    }
    if (!binding.released) this.attacher.detachPasid(requesterId, binding.pasid);
    binding.devices.delete(requesterId);
    // The PASID stays with the mm until it ends: its threads' IA32_PASID still have it. Linux, mm_pasid_drop.
    if (binding.released && binding.devices.size === 0) this.remove(binding);
  }

  private remove(binding: Binding): void {
    binding.unsubscribe();
    this.byMm.delete(binding.mm);
    this.byPasid.delete(binding.pasid);
    this.pasids.free(binding.pasid);
  }
}
