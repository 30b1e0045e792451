/** skeleton */
import type { Endpoint, InterruptSink, Mmio, PhysicalMap, Timer, Trace, Upstream } from '../ports.js';
import { RegisterFront } from './front.js';
import type { CacheSizes, Profile, UnitCosts } from './options.js';

export interface UnitOptions {
  readonly memory: PhysicalMap;
  /** Interrupts leave here: remapped messages and the unit's own events. */
  readonly sink: InterruptSink;
  readonly clock?: Timer;
  readonly costs?: Partial<UnitCosts>;
  readonly profile?: Profile;
  readonly sizes?: CacheSizes;
  readonly trace?: Trace;
}
/** Indices into `counters`. */
export const UnitCounter = {
  translations: 0,
  contextHits: 1,
  contextMisses: 2,
  pasidHits: 3,
  pasidMisses: 4,
  iotlbHits: 5,
  iotlbMisses: 6,
  interruptHits: 7,
  interruptMisses: 8,
  walkReads: 9,
  lookupReads: 10,
  faults: 11,
  pageRequests: 12,
  pageResponses: 13,
  messages: 14,
  invalidations: 15,
  atsRequests: 16,
} as const;

/** A VT-d remapping unit in scalable mode. */
export class IommuUnit implements Mmio {
  readonly front: RegisterFront;
  readonly counters = new Float64Array(24);
  constructor(options: UnitOptions) {
    this.front = new RegisterFront(options);
  }
  read(offset: number, width: number): number {
    return this.front.read(offset, width);
  }
  write(offset: number, width: number, value: number): void {
    this.front.write(offset, width, value);
  }
  /** The door of one function. `requesterId` 0 to 0xffff. */
  requester(_requesterId: number, _endpoint?: Endpoint): Upstream {
    throw new Error('skeleton');
  }
  /** An interrupt message of a requester: posted dword write to 0xFEEx_xxxx. */
  message(_requesterId: number, _address: number, _data: number): void {}
}
