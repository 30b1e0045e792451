/** The pages of one DMA mapping: pinned in the owner's mm and mapped into the domain, run by run. Linux, vfio_pin_pages_remote. */
import { hi, lo } from '@siov/layout';
import { DmaAccess } from '@siov/layout/pcie';
import { Errno, Prot } from '@siov/layout/uapi';
import type { Mm, PagingDomain } from './ports.js';

/** Pages taken at a time, so that a mapping of any size fails or succeeds with little memory. */
const BATCH = 512;

export class PinnedRange {
  readonly iova: number;
  readonly size: number;
  private readonly mm: Mm;
  private readonly domain: PagingDomain;
  private readonly pinned: Int32Array[] = [];
  private mapped = 0;

  constructor(mm: Mm, domain: PagingDomain, iova: number, size: number) {
    this.mm = mm;
    this.domain = domain;
    this.iova = iova;
    this.size = size;
  }

  /** Pins and maps all; 0, or -errno with nothing left behind. `isDevice` allows frames of device registers, which cannot be pinned. */
  take(address: number, prot: number, isDevice: ((frame: number) => boolean) | undefined): number {
    const write = (prot & Prot.WRITE) !== 0;
    const frames = new Int32Array(BATCH);
    for (let done = 0; done < this.size; ) {
      const pages = Math.min(BATCH, (this.size - done) / 4096);
      let result = this.mm.pin(address + done, pages, write, frames);
      let count = pages;
      if (result >= 0) result = this.keep(frames, pages);
      else if (pages > 1 && isDevice && result === -Errno.EFAULT) {
        // Device pages among them, perhaps: page by page.
        count = 1;
        result = this.mm.pin(address + done, 1, write, frames);
        if (result >= 0) result = this.keep(frames, 1);
        else result = this.devicePage(address + done, write, frames, isDevice);
      } else if (isDevice && result === -Errno.EFAULT) result = this.devicePage(address + done, write, frames, isDevice);
      if (result >= 0) result = this.map(this.iova + done, frames, count, prot);
      if (result < 0) {
        this.release();
        return result;
      }
      done += count * 4096;
      this.mapped = done;
    }
    return 0;
  }

  /** Unmaps first: the device loses the frames before anyone else may get them. */
  release(): void {
    if (this.mapped > 0) this.domain.unmap(this.iova, this.mapped);
    this.mapped = 0;
    for (const frames of this.pinned) {
      this.mm.unpin(frames, frames.length);
      this.mm.lockPages?.(-frames.length);
    }
    this.pinned.length = 0;
  }

  /** Pages that are pinned now count as locked, or are pinned no more: -ENOMEM. Linux, vfio_lock_acct. */
  private keep(frames: Int32Array, count: number): number {
    const refused = this.mm.lockPages?.(count) ?? 0;
    if (refused < 0) this.mm.unpin(frames, count);
    else this.pinned.push(frames.slice(0, count));
    return refused;
  }

  private devicePage(address: number, write: boolean, frames: Int32Array, isDevice: (frame: number) => boolean): number {
    let frame = this.mm.frameOf(address);
    if (frame < 0 && this.mm.handleFault(hi(address), lo(address), write ? DmaAccess.write : DmaAccess.read) >= 0) frame = this.mm.frameOf(address);
    if (frame < 0 || !isDevice(frame)) return -Errno.EFAULT;
    frames[0] = frame;
    return 1;
  }

  /** Contiguous frames in one step, so that large pages can be used. */
  private map(iova: number, frames: Int32Array, count: number, prot: number): number {
    for (let from = 0; from < count; ) {
      let to = from + 1;
      while (to < count && frames[to] === frames[to - 1]! + 1) to++;
      const result = this.domain.map(iova + from * 4096, frames[from]!, to - from, prot);
      if (result < 0) {
        if (from > 0) this.domain.unmap(iova, from * 4096);
        return result;
      }
      from = to;
    }
    return 0;
  }
}
