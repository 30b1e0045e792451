/** Page frames of guest RAM for the guest's kernel: one allocator for each run of host frames, so that a block never spans two. */
import type { Frames, Region } from './ports.js';

export class GuestFrames implements Frames {
  private readonly runs: { readonly first: number; readonly end: number; readonly frames: Frames }[] = [];
  private last = 0;

  /** `make`: an allocator over one region of RAM. Runs of fewer than `least` frames (default 1) are left out. */
  constructor(regions: readonly Region[], make: (region: Region) => Frames, least = 1) {
    for (const region of regions)
      if (region.frames >= least && region.firstFrame + region.frames > 1)
        this.runs.push({ first: region.firstFrame, end: region.firstFrame + region.frames, frames: make(region) });
  }

  /** First frame of 2^order zeroed frames, or -1. */
  alloc(order = 0): number {
    const { runs } = this;
    for (let i = 0; i < runs.length; i++) {
      const at = (this.last + i) % runs.length;
      const frame = runs[at]!.frames.alloc(order);
      if (frame < 0) continue;
      // A large block does not move the place where single frames come from.
      if (order === 0) this.last = at;
      return frame;
    }
    return -1;
  }

  free(frame: number, order = 0): void {
    const run = this.runs.find((each) => frame >= each.first && frame < each.end);
    if (!run) throw new RangeError(`frame: ${frame} is not of this guest`);
    run.frames.free(frame, order);
  }
}
