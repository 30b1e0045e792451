/** skeleton */
import type { CharDevice, Frames, IrqParent, Mm, Mmio, OpenFile, PhysicalMap, Trace, Vectors, Waiter } from '../ports.js';
import type { DeviceCapabilities, Domain, FaultRecord, NestedDomain, PagingDomain, SvaHandle } from './types.js';

export interface DriverCosts {
  /** Invalidation queue: submit and wait. */
  readonly queueWait: number;
  readonly svaBind: number;
  readonly pasidSet: number;
  readonly pasidClear: number;
}
export interface DriverPorts {
  readonly registers: Mmio;
  readonly memory: PhysicalMap;
  readonly frames: Frames;
  readonly clock: Waiter;
  readonly vectors: Vectors;
  readonly costs?: Partial<DriverCosts>;
  readonly trace?: Trace;
}
/** A file of /dev/iommu, as VFIO sees it. */
export interface IommufdContext {
  /** A device object for the function; its id, or -errno. */
  bindDevice(requesterId: number): number;
  /** Attaches an HWPT or (RID only) an IOAS. 0 or -errno. `pasid` NO_PASID: the RID. */
  attach(deviceId: number, ptId: number, pasid: number): number;
  detach(deviceId: number, pasid: number): number;
  unbind(deviceId: number): number;
  /** The domain behind an HWPT, or an IOAS's own; -errno. For devices that share a parent's RID: attach (parent RID, host PASID) to it. */
  domainOf(ptId: number): Domain | number;
}
export interface IommufdDevice extends CharDevice {
  /** The objects of an open file; undefined when it is not a file of this device. */
  contextOf(file: OpenFile): IommufdContext | undefined;
}
declare const todo: never;
/** The IOMMU driver of a kernel instance, on a unit or on a virtual one. */
export class IommuDriver {
  readonly faults: FaultRecord[] = [];
  onFault: ((fault: FaultRecord) => void) | undefined;
  readonly iommufd: IommufdDevice = todo;
  constructor(readonly_: DriverPorts) {
    void readonly_;
  }
  enable(): void {}
  /** 0 or -errno. */
  addDevice(_requesterId: number, _capabilities: DeviceCapabilities): number {
    return 0;
  }
  removeDevice(_requesterId: number): void {}
  pagingDomain(): PagingDomain {
    return todo;
  }
  nestedDomain(_parent: PagingDomain, _firstStageRoot: number, _addressWidth: number, _flags = 0): NestedDomain {
    return todo;
  }
  identityDomain(): Domain {
    return todo;
  }
  attach(_requesterId: number, _domain: Domain | undefined): number {
    return 0;
  }
  attachPasid(_requesterId: number, _pasid: number, _domain: Domain): number {
    return 0;
  }
  detachPasid(_requesterId: number, _pasid: number): void {}
  allocPasid(): number {
    return -1;
  }
  freePasid(_pasid: number): void {}
  svaBind(_requesterId: number, _mm: Mm): SvaHandle | number {
    return 0;
  }
  /** Answers a page request that a nested domain's handler took. */
  pageResponse(_requesterId: number, _pasid: number, _group: number, _code: number): void {}
  irqDomain(): IrqParent {
    return todo;
  }
}
