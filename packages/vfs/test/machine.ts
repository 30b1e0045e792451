/** A whole host without devices: memory, processor, clock and kernel. */
import { Clock, Cpu, type CpuOptions } from '@siov/cpu';
import { AddressSpace, FrameAllocator, MemoryFile, PhysicalMemory } from '@siov/memory';
import { Kernel, type KernelOptions, type Program, type StepResult, type UserTask } from '../src/index.js';

export const RW = 3;
export const ANONYMOUS = 0x22;
export const SHARED = 1;
export const POPULATE = 0x8000;
export const RDONLY = 0;
export const WRONLY = 1;
export const RDWR = 2;
export const NONBLOCK = 0o4000;

export function machine(options: Partial<KernelOptions> & { frames?: number; cpuCosts?: CpuOptions['costs'] } = {}) {
  const memory = new PhysicalMemory();
  const ram = memory.addRam(0x100, options.frames ?? 1024);
  const frames = new FrameAllocator(ram);
  const clock = new Clock();
  const cpu = new Cpu({ memory, clock, costs: options.cpuCosts });
  const newMm = () => new AddressSpace({ memory, frames, clock, flush: (root, page, pages) => cpu.flush(root, page, pages) });
  const kernel = new Kernel({ clock, cpu, newMm, newMemoryFile: () => new MemoryFile({ memory, frames }), ...options });
  /** A process that only makes the calls of the test. */
  const idleTask = (name = 'test'): UserTask => kernel.spawn({ step: () => 'wait' }, name);
  return { memory, ram, frames, clock, cpu, kernel, newMm, idleTask };
}

/** A program from a list of steps, each run until it does not answer 'wait'. */
export function steps(...list: ((task: UserTask) => StepResult)[]): Program {
  let at = 0;
  return {
    step(task) {
      const result = list[at]!(task);
      if (result !== 'wait') at++;
      return at >= list.length ? 'done' : result;
    },
  };
}
