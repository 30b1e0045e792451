/**
 * A user's own accelerator, in sixty lines: it adds up the bytes of a buffer. One register page for its queue (address, length, go, result)
 * and one for its driver (the PASID that requests carry). It sees memory through the IOMMU only.
 */
import type { Extent, Upstream } from '@siov/iommu';
import { DmaAccess } from '@siov/layout/pcie';
import type { Mmio } from '@siov/memory';

/** Byte offsets in the queue's page. `go` starts; `state` then is 1 while busy, 2 done, 3 a fault. */
export const Queue = { addressLow: 0, addressHigh: 4, length: 8, go: 12, state: 16, sum: 20 } as const;
/** Byte offset in the driver's page. */
export const Control = { pasid: 0 } as const;

export interface Clock {
  handler(run: (argument: number) => void): number;
  after(ns: number, handler: number, argument: number): void;
}

export class SumDevice {
  readonly queue: Mmio;
  readonly control: Mmio;
  #pasid = -1;
  readonly #registers = new Uint32Array(6);

  constructor(clock: Clock, upstream: Upstream) {
    const registers = this.#registers;
    const extent: Extent = { view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 };
    const run = clock.handler(() => {
      let low = registers[0]!;
      let high = registers[1]! | 0;
      let left = registers[2]!;
      let sum = 0;
      while (left > 0) {
        // A piece at a time, as long as it is contiguous in physical memory; anything but success is a fault, which is a value.
        if (upstream.acquire(DmaAccess.read, this.#pasid, high, low | 0, left, extent) !== 0) {
          registers[Queue.state / 4] = 3;
          return;
        }
        for (let i = 0; i < extent.length; i++) sum += extent.view[extent.offset + i]!;
        left -= extent.length;
        if (low + extent.length > 0xffff_ffff) high++;
        low = (low + extent.length) >>> 0;
      }
      registers[Queue.sum / 4] = sum;
      registers[Queue.state / 4] = 2;
    });
    this.queue = {
      read: (offset) => registers[offset / 4] ?? 0,
      write: (offset, _width, value) => {
        if (offset < Queue.go) registers[offset / 4] = value;
        else if (offset === Queue.go) {
          registers[Queue.state / 4] = 1;
          clock.after(100, run, 0); // a store never runs the device: it runs when time goes on
        }
      },
    };
    this.control = { read: () => this.#pasid, write: (offset, _width, value) => void (offset === Control.pasid && (this.#pasid = value | 0)) };
  }
}
