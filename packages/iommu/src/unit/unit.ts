/**
 * A remapping unit in scalable mode: the register front, the caches behind it, and translation from tables in memory. VT-d, "DMA
 * Remapping", "Caching Translation Information".
 */
import { DmaAccess, TlpStatus } from '@siov/layout/pcie';
import type { Endpoint, ForeignProcesses, InterruptSink, Mmio, PhysicalMap, Timer, Trace, Upstream } from '../ports.js';
import { Capability } from '../spec/capabilities.js';
import { faultTraits } from '../spec/faults.js';
import { AddressSpaces } from './address-spaces.js';
import { UnitCounter } from './counters.js';
import { type FrontHooks, RegisterFront } from './front.js';
import { InterruptRemapper } from './interrupts.js';
import { Iotlb } from './iotlb.js';
import type { CacheSizes, Profile, UnitCosts } from './options.js';
import { Requester } from './requester.js';
import { StaleDetector, type StaleUse } from './stale.js';
import { Walker } from './walk.js';

export interface UnitOptions {
  readonly memory: PhysicalMap;
  /** Interrupts leave here: remapped messages and the unit's own events. */
  readonly sink: InterruptSink;
  /** For answers that the unit gives by itself; absent, they come at once. */
  readonly clock?: Timer | undefined;
  readonly costs?: Partial<UnitCosts> | undefined;
  readonly profile?: Profile | undefined;
  readonly sizes?: CacheSizes | undefined;
  readonly trace?: Trace | undefined;
  /** First stages that are processes of the machine itself. */
  readonly foreign?: ForeignProcesses | undefined;
  /**
   * Hears of every use of a cached entry that the tables no longer bear out: software forgot an invalidation. Each answer of a cache is then
   * looked up anew, which takes time; absent, it costs a branch.
   */
  readonly onStale?: ((use: StaleUse) => void) | undefined;
}

export class IommuUnit implements Mmio {
  // fixed
  /** What `counters` shows; without the hits that requesters have not told of yet. */
  readonly totals = new Float64Array(Object.keys(UnitCounter).length);
  readonly lookupCost: number;
  readonly walkCost: number;
  readonly atsCost: number;
  // ports
  readonly map: PhysicalMap;
  readonly trace: Trace | undefined;
  readonly foreign: ForeignProcesses | undefined;
  private readonly clock: Timer | undefined;
  // state
  readonly front: RegisterFront;
  readonly spaces: AddressSpaces;
  readonly iotlb: Iotlb;
  readonly walker: Walker;
  readonly interrupts: InterruptRemapper;
  readonly detector: StaleDetector | undefined;
  private readonly requesters = new Map<number, Requester>();
  private readonly answers: (() => void)[] = [];
  private readonly answer: number;
  /** Moves whenever what a requester remembers of an address space may have become wrong. */
  epoch = 0;
  /** The place in the PASID cache whose tables the walker knows, and the epoch in which it learnt them. */
  walked = -1;
  walkedEpoch = -1;

  constructor(options: UnitOptions) {
    const { memory, sink, clock, costs = {}, profile, sizes = {}, trace, onStale } = options;
    this.map = memory;
    this.trace = trace;
    this.foreign = options.foreign;
    this.clock = clock;
    this.lookupCost = costs.lookup ?? 0;
    this.walkCost = costs.walkRead ?? 0;
    this.atsCost = costs.atsRequest ?? 0;
    this.front = new RegisterFront({ memory, sink, profile, trace, hooks: this.hooks() });
    this.spaces = new AddressSpaces(this.front.structures, sizes.context ?? 64, sizes.pasid ?? 512);
    this.iotlb = new Iotlb(sizes.iotlb ?? 4096);
    this.walker = new Walker(memory, this.front.resolved, sizes.pagingStructure ?? 0);
    this.detector = onStale && new StaleDetector(onStale, memory, this.front.resolved, this.front.structures, () => clock?.now ?? 0);
    this.interrupts = new InterruptRemapper(this.front, memory, sink, sizes.interrupt ?? 64, this.detector);
    this.answer = clock ? clock.handler(() => this.answers.shift()?.()) : -1;
  }

  /** Counts so far, by `UnitCounter`. */
  get counters(): Float64Array {
    for (const requester of this.requesters.values()) requester.tell();
    return this.totals;
  }

  read(offset: number, width: number): number {
    return this.front.read(offset, width);
  }
  write(offset: number, width: number, value: number): void {
    this.front.write(offset, width, value);
  }

  /** The door of one function; the same one for the same requester id (0 to 0xffff), whose endpoint a later call may replace. */
  requester(requesterId: number, endpoint?: Endpoint): Upstream {
    if (!Number.isInteger(requesterId) || requesterId < 0 || requesterId > 0xffff)
      throw new RangeError(`requesterId: bus, device and function in 16 bits, not ${requesterId}`);
    let requester = this.requesters.get(requesterId);
    if (!requester) this.requesters.set(requesterId, (requester = new Requester(this, requesterId, endpoint)));
    else if (endpoint) requester.endpoint = endpoint;
    return requester;
  }

  /** An interrupt message of a requester: a posted dword write to 0xFEEx_xxxx, without PASID. */
  message(requesterId: number, address: number, data: number): void {
    const { interrupts, totals: counters } = this;
    interrupts.message(requesterId, address, data);
    counters[UnitCounter.messages] = interrupts.messages;
    counters[UnitCounter.interruptHits] = interrupts.hits;
    counters[UnitCounter.interruptMisses] = interrupts.misses;
  }

  /** Everything as after power-on; requesters stay. */
  reset(): void {
    this.front.reset();
    this.flush();
  }

  /** Ends a request: what it answers, and a fault record where the reason asks for one. */
  refuse(fault: number, disabled: number, requesterId: number, access: number, pasid: number, hi: number, lo: number): number {
    const traits = faultTraits[fault]!;
    const answer = access & DmaAccess.ats ? traits >>> 1 : 0;
    if (answer === 2) return TlpStatus.notPresent;
    this.totals[UnitCounter.faults]!++;
    if (!disabled || traits & 1) this.front.recordFault(fault, requesterId, pasid, hi, lo, access);
    return answer === 1 ? TlpStatus.completerAbort : TlpStatus.unsupportedRequest;
  }

  /** A page group response of the unit itself, after the request's caller has returned. */
  answerLater(requester: Requester, pasid: number, group: number, code: number): void {
    const run = (): void => requester.endpoint?.pageResponse(pasid, group, code);
    if (!this.clock) {
      run();
      return;
    }
    this.answers.push(run);
    this.clock.after(0, this.answer, 0);
  }

  private flush(): void {
    this.epoch++;
    this.spaces.clear();
    this.iotlb.invalidate(-1, -1, 0, 0, -1);
    this.walker.structures.clear();
    this.interrupts.invalidate(0, -1);
  }

  private hooks(): FrontHooks {
    const count = (counter: number): void => {
      this.totals[counter]!++;
    };
    return {
      translationEnabled: () => {
        this.epoch++;
      },
      rootChanged: () => {
        if (Capability.get.setRootFlushes(this.front.resolved.capability, 0)) this.flush();
      },
      interruptTableChanged: () => {
        if (Capability.get.setIrtaFlushes(this.front.resolved.capability, 0)) this.interrupts.invalidate(0, -1);
      },
      contextChanged: (granularity, _domainId, sourceId, functionMask) => {
        count(UnitCounter.contextInvalidations);
        this.epoch++;
        this.spaces.contextChanged(granularity, sourceId, functionMask);
      },
      pasidChanged: (granularity, domainId, pasid) => {
        count(UnitCounter.pasidInvalidations);
        this.epoch++;
        this.spaces.pasidChanged(granularity, domainId, pasid);
      },
      iotlbInvalidated: (domainId, pasid, hi, lo, pages, leafOnly) => {
        count(UnitCounter.iotlbInvalidations);
        this.iotlb.invalidate(domainId, pasid, hi, lo, pages);
        // IH = 1: software says that no table pointer changed. Else more goes than is asked for, never less.
        if (!leafOnly) this.walker.structures.clear();
      },
      deviceTlbInvalidated: (requesterId, pasid, hi, lo, bytes) => {
        count(UnitCounter.deviceTlbInvalidations);
        this.requesters.get(requesterId)?.endpoint?.invalidate?.(pasid, hi, lo, bytes);
      },
      interruptEntriesChanged: (index, entries) => {
        count(UnitCounter.interruptInvalidations);
        this.interrupts.invalidate(index, entries);
      },
      pageResponse: (requesterId, pasid, group, code) => {
        count(UnitCounter.pageResponses);
        this.requesters.get(requesterId)?.endpoint?.pageResponse(pasid, group, code);
      },
    };
  }
}
