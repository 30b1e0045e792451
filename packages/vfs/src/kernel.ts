/**
 * One kernel instance as user space meets it: device nodes, sysfs, processes and their scheduling. Built once for a host and once for each
 * guest.
 */
import { Event } from '@siov/layout/events';
import { Errno, PENDING } from '@siov/layout/uapi';
import { type CharDevice, FileTable, type OpenFile } from './files.js';
import type { Clock, Exit, MemoryFile, Mm, Outside, Processor, Trace } from './ports.js';
import { schedule } from './schedule.js';
import { ACCESS_MODE, Counter, type KernelCosts, Syscall } from './spec.js';
import { Sysfs } from './sysfs.js';
import { type Program, UserTask } from './task.js';

/**
 * Where numbers begin under which a process from outside has files that are kept for it: no descriptor of a real process comes so far. Those
 * that it is given keep the number that they have there.
 */
const OUTSIDE_FIRST = 2 ** 30;

/** What makes a kernel a guest; the VMM may change it while it runs. */
export interface Guest {
  /** Host frame of the EPT's root, -1 on a host. */
  eptRoot: number;
  /** Host frames of the PASID directories for VMX PASID translation, -1 without. */
  pasidTranslation: number;
  pasidTranslationHigh: number;
  exit: Exit | undefined;
}
export interface KernelOptions {
  readonly clock: Clock;
  readonly cpu: Processor;
  /** A fresh address space for a process. */
  newMm(): Mm;
  /** A fresh file of memory, for memfd_create; absent: ENOSYS. */
  newMemoryFile?(): MemoryFile;
  readonly costs?: KernelCosts | undefined;
  readonly trace?: Trace | undefined;
  readonly eptRoot?: number | undefined;
  readonly pasidTranslation?: number | undefined;
  readonly pasidTranslationHigh?: number | undefined;
  readonly exit?: Exit | undefined;
  /** Descriptors a process may have (default 1024). RLIMIT_NOFILE. */
  readonly maxFiles?: number | undefined;
}
export interface IoctlCount {
  readonly number: number;
  readonly name: string;
  count: number;
}

export class Kernel {
  readonly clock: Clock;
  readonly cpu: Processor;
  readonly sysfs = new Sysfs();
  readonly guest: Guest;
  readonly maxFiles: number;
  /** By Counter: system calls that returned, by name. */
  readonly counters = new Float64Array(Object.keys(Counter).length);
  /** ioctls that returned, by number. */
  readonly ioctls = new Map<number, IoctlCount>();
  /** Processes that live, in order of birth. */
  readonly tasks: UserTask[] = [];
  private readonly options: KernelOptions;
  private readonly costs: Required<KernelCosts>;
  private readonly devices = new Map<string, CharDevice>();
  private readonly timer: number;
  private nextPid = 1;
  private last: UserTask | undefined;

  constructor(options: KernelOptions) {
    this.options = options;
    this.clock = options.clock;
    this.cpu = options.cpu;
    this.maxFiles = options.maxFiles ?? 1024;
    const { syscall = 0, ioctl = syscall, mmap = syscall, eventfdWrite = syscall, contextSwitch = 0 } = options.costs ?? {};
    this.costs = { syscall, ioctl, mmap, eventfdWrite, contextSwitch };
    const { eptRoot = -1, pasidTranslation = -1, pasidTranslationHigh = -1, exit } = options;
    this.guest = { eptRoot, pasidTranslation, pasidTranslationHigh, exit };
    this.timer = options.clock.handler((pid) => this.task(pid)?.wakeUp());
  }

  /** A device node at a path such as '/dev/iommu'. */
  register(path: string, device: CharDevice): void {
    if (this.devices.has(path)) throw new RangeError(`path: ${path} is registered`);
    this.devices.set(path, device);
  }

  /** The node goes; open files stay. */
  unregister(path: string): void {
    this.devices.delete(path);
  }

  /** Paths of all device nodes, sorted. */
  nodes(): string[] {
    return [...this.devices.keys()].sort();
  }

  /** A new process. One that lives outside of the simulation brings its memory, and the number that it has there (RangeError: that one lives). */
  spawn(program: Program, name = 'program', outside?: Outside<OpenFile>): UserTask {
    if (!outside) return this.adopt(program, name, this.options.newMm(), new FileTable(this.maxFiles));
    if (this.task(outside.pid)) throw new RangeError(`pid: process ${outside.pid} lives`);
    return this.adopt(program, name, outside.mm, new FileTable(this.maxFiles, OUTSIDE_FIRST), outside);
  }

  task(pid: number): UserTask | undefined {
    return this.tasks.find((task) => task.pid === pid);
  }

  /** The process dies of SIGKILL: at once, or after its step when it runs. 0 or -ESRCH. */
  kill(pid: number): number {
    const task = this.task(pid);
    if (!task) return -Errno.ESRCH;
    if (task.running) task.signal = 'SIGKILL';
    else task.end(0, 'SIGKILL');
    return 0;
  }

  /** Runs processes round robin, and the clock; returns when `until` holds, or when nothing can ever run. */
  run(until?: () => boolean): void {
    schedule([this], this.clock, until);
  }

  // For the scheduler and tasks

  newMemoryFile(): MemoryFile | undefined {
    return this.options.newMemoryFile?.();
  }

  /** One step of one process; false when it parked and nobody woke it meanwhile. */
  step(task: UserTask): boolean {
    if (this.last !== task) {
      if (this.last) {
        this.counters[Counter.contextSwitches]!++;
        this.clock.spend(this.costs.contextSwitch);
      }
      this.last = task;
    }
    task.running = true;
    task.woken = false;
    let result: string;
    try {
      result = task.program.step(task);
    } catch (error) {
      const signal = signalOf(error);
      if (signal === undefined) throw error;
      this.counters[Counter.signals]!++;
      task.end(0, signal);
      return true;
    } finally {
      task.running = false;
    }
    if (task.signal !== undefined) task.end(0, task.signal);
    else if (result === 'done') task.end(0, undefined);
    else task.parked = result === 'wait' && !task.woken;
    return !task.parked;
  }

  /** Parked processes try again: something happened. */
  wakeAll(): void {
    for (const task of this.tasks) task.parked = false;
  }

  wakeAfter(ns: number, task: UserTask): void {
    this.clock.after(ns, this.timer, task.pid);
  }

  adopt(program: Program, name: string, mm: Mm, files: FileTable, outside?: Outside<OpenFile>): UserTask {
    while (!outside && this.task(this.nextPid)) this.nextPid++;
    const task = new UserTask(this, outside?.pid ?? this.nextPid++, name, program, mm, files, outside);
    this.tasks.push(task);
    return task;
  }

  ended(task: UserTask): void {
    const at = this.tasks.indexOf(task);
    if (at >= 0) this.tasks.splice(at, 1);
    this.wakeAll();
  }

  lookUp(task: UserTask, path: string, flags: number): OpenFile | number {
    const device = this.devices.get(path);
    if (device) return device.open(task, flags);
    const mode = flags & ACCESS_MODE;
    return path.startsWith('/sys/') ? this.sysfs.open(path, mode !== 1, mode !== 0) : -Errno.ENOENT;
  }

  enter(call: number, cost?: 'eventfdWrite'): void {
    const { costs } = this;
    this.clock.spend(cost ? costs[cost] : call === Syscall.ioctl ? costs.ioctl : call === Syscall.mmap ? costs.mmap : costs.syscall);
  }

  leave(call: number, fd: number, argument: number, result: number): number {
    this.counters[result === PENDING ? Counter.pending : call]!++;
    const { trace } = this.options;
    if (trace) trace.emit(Event.syscall, call, fd, argument, result);
    return result;
  }

  countIoctl(number: number, names: Readonly<Record<number, string>> | undefined): void {
    const known = this.ioctls.get(number);
    if (known) known.count++;
    else this.ioctls.set(number, { number, name: names?.[number] ?? `0x${number.toString(16)}`, count: 1 });
  }
}

/** The name of a processor's Signal, wherever its class came from. */
const signalOf = (error: unknown): string | undefined => {
  const signal = error instanceof Error ? (error as { signal?: unknown }).signal : undefined;
  return typeof signal === 'string' ? signal : undefined;
};
