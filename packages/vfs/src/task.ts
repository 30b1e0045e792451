/**
 * A user process: its registers, memory and files, and the system calls it makes, with the kernel's refusals in the kernel's order. A
 * call answers a value, -errno, or PENDING: the program then returns 'wait' and makes the same call again. Section 2 of the manual.
 */
import { hi, lo } from '@siov/layout';
import { Errno, MapFlag, Open, PENDING, Poll, Prot } from '@siov/layout/uapi';
import { EventFd } from './eventfd.js';
import { Description, type FileTable, type OpenFile, type Task } from './files.js';
import type { Kernel } from './kernel.js';
import { MemoryFd } from './memory-file.js';
import type { Context, Exit, Mm, Outside, Processor } from './ports.js';
import { EventFdFlag, MAX_RW_COUNT, PATH_MAX, Syscall } from './spec.js';

/** What a program wants next: run again, park until woken or until an event happened, or end with code 0. */
export type StepResult = 'again' | 'wait' | 'done';
export interface Program {
  step(task: UserTask): StepResult;
}
export interface PollFd {
  readonly fd: number;
  readonly events: number;
  revents: number;
}

class TaskContext implements Context {
  /** IA32_PASID of this thread; a child starts with none. */
  pasidMsr = 0;
  private readonly mm: Mm;
  private readonly kernel: Kernel;
  constructor(mm: Mm, kernel: Kernel) {
    this.mm = mm;
    this.kernel = kernel;
  }
  get rootFrame(): number {
    return this.mm.rootFrame;
  }
  get levels(): 4 | 5 {
    return this.mm.levels ?? 4;
  }
  get eptRoot(): number {
    return this.kernel.guest.eptRoot;
  }
  get pasidTranslation(): number {
    return this.kernel.guest.pasidTranslation;
  }
  get pasidTranslationHigh(): number {
    return this.kernel.guest.pasidTranslationHigh;
  }
  get exit(): Exit | undefined {
    return this.kernel.guest.exit;
  }
  handleFault(high: number, low: number, access: number): number {
    return this.mm.handleFault(high, low, access);
  }
  /** A process bound to a PASID gets it with its first ENQCMD. Linux, try_fixup_enqcmd_gp. */
  fixPasid(): boolean {
    if (this.mm.pasid < 0) return false;
    this.pasidMsr = this.mm.pasid | (1 << 31);
    return true;
  }
}

export class UserTask implements Task {
  readonly pid: number;
  readonly name: string;
  readonly program: Program;
  readonly mm: Mm;
  readonly context: Context;
  readonly kernel: Kernel;
  /** Set by exit and death. */
  exited = false;
  exitCode = 0;
  /** The signal it died of. */
  signal: string | undefined;
  /** Scheduling state, for the kernel. */
  parked = false;
  woken = false;
  running = false;
  private readonly cpu: Processor;
  private readonly files: FileTable;
  private readonly outside: Outside<OpenFile> | undefined;
  private pollDeadline = -1;

  constructor(kernel: Kernel, pid: number, name: string, program: Program, mm: Mm, files: FileTable, outside?: Outside<OpenFile>) {
    this.kernel = kernel;
    this.pid = pid;
    this.name = name;
    this.program = program;
    this.mm = mm;
    this.files = files;
    this.outside = outside;
    this.cpu = kernel.cpu;
    this.context = new TaskContext(mm, kernel);
  }

  // For drivers

  copyIn(address: number, out: Uint8Array): number {
    return this.mm.read(address, out);
  }
  copyOut(address: number, bytes: Uint8Array): number {
    return this.mm.write(address, bytes);
  }
  install(file: OpenFile): number {
    const { files, outside } = this;
    if (this.exited) return -Errno.ESRCH;
    const description = new Description(file, Open.RDWR);
    if (!outside) return files.add(description);
    const fd = outside.newNumber((n) => files.get(n) !== undefined);
    if (fd < 0) return fd;
    files.put(fd, description);
    outside.installed(fd);
    return fd;
  }
  /** A descriptor of the program's own: of a process outside it is the number that the program knows, not the one of the simulated table. */
  file(fd: number): OpenFile | undefined {
    return this.outside ? this.outside.file(fd) : this.files.get(fd)?.file;
  }
  /** Another process gets a descriptor of the same open file: what SCM_RIGHTS of unix(7) does. Its number there, or -errno. */
  passFile(fd: number, to: UserTask): number {
    const description = this.files.get(fd);
    if (!description) return -Errno.EBADF;
    if (to.exited) return -Errno.ESRCH;
    const there = to.files.add(description.hold());
    if (there < 0) description.put();
    return there;
  }
  wakeUp(): void {
    this.parked = false;
    this.woken = true;
  }

  // System calls

  open(path: string, flags: number): number {
    this.enter(Syscall.open);
    return this.leave(Syscall.open, -1, 0, this.exited ? -Errno.ESRCH : this.openFile(path, flags));
  }

  close(fd: number): number {
    this.enter(Syscall.close);
    const description = this.files.remove(fd);
    description?.put();
    return this.leave(Syscall.close, fd, 0, description ? 0 : -Errno.EBADF);
  }

  ioctl(fd: number, number: number, argument: number): number {
    this.enter(Syscall.ioctl);
    number >>>= 0;
    const description = this.files.get(fd);
    let result: number = -Errno.EBADF;
    if (description) {
      const { file } = description.hold();
      result = file.ioctl ? file.ioctl(this, number, argument) : -Errno.ENOTTY;
      if (result !== PENDING) this.kernel.countIoctl(number, file.ioctlNames);
      description.put();
    }
    return this.leave(Syscall.ioctl, fd, number | 0, result);
  }

  mmap(address: number, length: number, prot: number, flags: number, fd = -1, offset = 0): number {
    this.enter(Syscall.mmap);
    return this.leave(Syscall.mmap, fd, lo(length), this.map(address, length, prot, flags, fd, offset));
  }

  munmap(address: number, length: number): number {
    this.enter(Syscall.munmap);
    return this.leave(Syscall.munmap, -1, lo(length), this.mm.munmap(address, length));
  }

  mprotect(address: number, length: number, prot: number): number {
    this.enter(Syscall.mprotect);
    return this.leave(Syscall.mprotect, -1, prot, this.mm.mprotect(address, length, prot));
  }

  /** mremap(2); `flags` MREMAP_MAYMOVE 1, MREMAP_FIXED 2. */
  mremap(address: number, oldLength: number, newLength: number, flags = 0, newAddress = 0): number {
    this.enter(Syscall.mremap);
    const result = this.mm.mremap?.(address, oldLength, newLength, flags, newAddress) ?? -Errno.ENOSYS;
    return this.leave(Syscall.mremap, -1, lo(newLength), result);
  }
  mlock(address: number, length: number): number {
    this.enter(Syscall.mlock);
    return this.leave(Syscall.mlock, -1, lo(length), this.mm.mlock?.(address, length) ?? -Errno.ENOSYS);
  }
  munlock(address: number, length: number): number {
    this.enter(Syscall.munlock);
    return this.leave(Syscall.munlock, -1, lo(length), this.mm.munlock?.(address, length) ?? -Errno.ENOSYS);
  }
  /** memfd_create(2): a file of memory, of no length yet. `flags`: MFD_CLOEXEC 1, MFD_ALLOW_SEALING 2, of which none does anything here. */
  memfd(flags = 0): number {
    this.enter(Syscall.memfd);
    let result: number = -Errno.EINVAL;
    const memory = flags & ~3 ? undefined : this.kernel.newMemoryFile();
    if (memory) {
      result = this.install(new MemoryFd(memory));
      if (result < 0) memory.close();
    } else if (!(flags & ~3)) result = -Errno.ENOSYS;
    return this.leave(Syscall.memfd, result, flags, result);
  }
  /** ftruncate(2) on a file of memory. */
  ftruncate(fd: number, length: number): number {
    this.enter(Syscall.ftruncate);
    const description = this.files.get(fd);
    let result: number = -Errno.EBADF;
    if (description) result = description.writable ? (description.file.memory?.resize(length) ?? -Errno.EINVAL) : -Errno.EINVAL;
    return this.leave(Syscall.ftruncate, fd, lo(length), result);
  }

  read(fd: number, address: number, length: number): number {
    this.enter(Syscall.read);
    const result = this.transfer(fd, address, length, -1, false);
    return this.leave(Syscall.read, fd, lo(length), result);
  }

  write(fd: number, address: number, length: number): number {
    this.enter(Syscall.write, this.files.get(fd)?.file.writeCost);
    return this.leave(Syscall.write, fd, lo(length), this.transfer(fd, address, length, -1, true));
  }

  pread(fd: number, address: number, length: number, offset: number): number {
    this.enter(Syscall.pread);
    return this.leave(Syscall.pread, fd, lo(length), offset >= 0 ? this.transfer(fd, address, length, offset, false) : -Errno.EINVAL);
  }

  pwrite(fd: number, address: number, length: number, offset: number): number {
    this.enter(Syscall.pwrite);
    return this.leave(Syscall.pwrite, fd, lo(length), offset >= 0 ? this.transfer(fd, address, length, offset, true) : -Errno.EINVAL);
  }

  /** How many of the descriptors are ready, their `revents` set; 0 after the time. Negative: no limit. */
  poll(fds: readonly PollFd[], timeoutMs = -1): number {
    this.enter(Syscall.poll);
    let ready = 0;
    for (const entry of fds) {
      entry.revents = entry.fd < 0 ? 0 : this.readiness(entry.fd, entry.events);
      if (entry.revents) ready++;
    }
    return this.leave(Syscall.poll, -1, fds.length, this.pollAnswer(ready, timeoutMs));
  }

  /** poll(2) as programs call it: `count` structures pollfd (int fd, short events, short revents) in user memory. */
  pollAt(address: number, count: number, timeoutMs: number): number {
    this.enter(Syscall.poll);
    let result: number = -Errno.EINVAL;
    if (count >= 0 && count <= this.kernel.maxFiles) {
      const entries = new Uint8Array(count * 8);
      const view = new DataView(entries.buffer);
      result = this.copyIn(address, entries);
      let ready = 0;
      for (let at = 0; result === 0 && at < entries.length; at += 8) {
        const fd = view.getInt32(at, true);
        const revents = fd < 0 ? 0 : this.readiness(fd, view.getUint16(at + 4, true));
        view.setUint16(at + 6, revents, true);
        if (revents) ready++;
      }
      if (result === 0) result = this.copyOut(address, entries) || this.pollAnswer(ready, timeoutMs);
    }
    return this.leave(Syscall.poll, -1, count, result);
  }

  /** eventfd2(2). */
  eventfd(initial = 0, flags = 0): number {
    this.enter(Syscall.eventfd);
    const bad = flags & ~(EventFdFlag.SEMAPHORE | EventFdFlag.NONBLOCK | EventFdFlag.CLOEXEC) || !(initial >= 0 && initial < 2 ** 32);
    return this.leave(Syscall.eventfd, -1, lo(initial), bad ? -Errno.EINVAL : this.install(new EventFd(initial, flags)));
  }

  /** A child with a copy of the memory and the same files, that runs `program`. Its pid, or -errno. */
  fork(program: Program, name = this.name): number {
    this.enter(Syscall.fork);
    const mm = this.exited ? -Errno.ESRCH : this.mm.fork();
    return this.leave(Syscall.fork, -1, 0, typeof mm === 'number' ? mm : this.kernel.adopt(program, name, mm, this.files.copy()).pid);
  }

  /** Ends at once: memory first, then files. The step that called it should return. */
  exit(code: number): void {
    this.enter(Syscall.exit);
    this.leave(Syscall.exit, -1, code, 0);
    this.end(code & 0xff, undefined);
  }

  /** Kills a process of this kernel, itself too. */
  kill(pid: number): number {
    this.enter(Syscall.kill);
    return this.leave(Syscall.kill, -1, pid, this.kernel.kill(pid));
  }

  getpid(): number {
    this.enter(Syscall.getpid);
    return this.leave(Syscall.getpid, -1, 0, this.pid);
  }

  /** For the kernel: the end of the process. Linux, do_exit: exit_mm, then exit_files. */
  end(code: number, signal: string | undefined): void {
    if (this.exited) return;
    this.exited = true;
    this.exitCode = code;
    this.signal = signal;
    this.mm.exit();
    this.files.closeAll();
    this.kernel.ended(this);
  }

  // Instructions, without allocation. Addresses are two int32 words.

  /** The words that `words` indexes. */
  get view(): Uint32Array {
    return this.cpu.view;
  }
  get byteView(): Uint8Array {
    return this.cpu.byteView;
  }
  /** Word index into `view` of a 4-aligned address, to the end of its page. */
  words(high: number, low: number, access: number): number {
    return this.cpu.words(this.context, high, low, access);
  }
  /** Byte index into `byteView`. */
  bytes(high: number, low: number, access: number): number {
    return this.cpu.bytes(this.context, high, low, access);
  }
  movdir64b(dstHi: number, dstLo: number, srcHi: number, srcLo: number): void {
    this.cpu.movdir64b(this.context, dstHi, dstLo, srcHi, srcLo);
  }
  /** 0 accepted, 1 retry. */
  enqcmd(dstHi: number, dstLo: number, srcHi: number, srcLo: number): number {
    return this.cpu.enqcmd(this.context, dstHi, dstLo, srcHi, srcLo);
  }
  load32(high: number, low: number): number {
    return this.cpu.load(this.context, high, low, 4);
  }
  store32(high: number, low: number, value: number): void {
    this.cpu.store(this.context, high, low, 4, value);
  }

  // The same for addresses as Numbers, and structures

  load(address: number, width: number): number {
    return this.cpu.load(this.context, hi(address), lo(address), width);
  }
  store(address: number, width: number, value: number): void {
    this.cpu.store(this.context, hi(address), lo(address), width, value);
  }
  /** Private anonymous memory, there already. Throws when there is none left. */
  alloc(bytes: number, flags = 0): number {
    const address = this.mmap(0, bytes, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.POPULATE | flags);
    if (address < 0) throw new RangeError(`bytes: no memory for ${bytes} bytes (${address})`);
    return address;
  }
  /** The program writes a structure: a Signal where it may not. */
  writeStruct(address: number, data: Uint8Array | Uint32Array): void {
    this.cpu.copyOut(this.context, address, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  /** The program reads a structure into `out`. */
  readStruct<T extends Uint8Array | Uint32Array>(address: number, out: T): T {
    this.cpu.copyIn(this.context, address, new Uint8Array(out.buffer, out.byteOffset, out.byteLength));
    return out;
  }

  // Helpers

  private enter(call: number, cost?: 'eventfdWrite'): void {
    this.kernel.enter(call, cost);
  }

  private leave(call: number, fd: number, argument: number, result: number): number {
    return this.kernel.leave(call, fd, argument, result);
  }

  private openFile(path: string, flags: number): number {
    if (path.length >= PATH_MAX) return -Errno.ENAMETOOLONG;
    const file = this.kernel.lookUp(this, path, flags);
    if (typeof file === 'number') return file;
    const description = new Description(file, flags);
    const fd = this.files.add(description);
    if (fd < 0) description.put();
    return fd;
  }

  private map(address: number, length: number, prot: number, flags: number, fd: number, offset: number): number {
    if (flags & MapFlag.ANONYMOUS) return this.mm.mmap(address, length, prot, flags);
    if (!(offset >= 0) || offset % 4096) return -Errno.EINVAL;
    const description = this.files.get(fd);
    if (!description) return -Errno.EBADF;
    if (!(length > 0)) return -Errno.EINVAL;
    const sealed = (flags & MapFlag.SHARED) !== 0 && !description.writable;
    if (!description.readable || (sealed && prot & Prot.WRITE)) return -Errno.EACCES;
    const { file } = description;
    if (file.memory) return this.mm.mmap(address, length, prot, flags, file.memory, offset);
    if (!file.mmap) return -Errno.ENODEV;
    return this.mm.mmap(
      address,
      length,
      prot,
      flags,
      {
        map: (area) => {
          if (sealed) area.maxProt = Prot.READ | Prot.EXEC;
          const result = file.mmap!(this, area);
          if (result < 0) return result;
          description.hold();
          const { onClose } = area;
          area.onClose = () => {
            onClose?.();
            description.put();
          };
          return 0;
        },
      },
      offset,
    );
  }

  private transfer(fd: number, address: number, length: number, at: number, writing: boolean): number {
    const description = this.files.get(fd);
    if (!description || !(writing ? description.writable : description.readable)) return -Errno.EBADF;
    const { file } = description;
    if (at >= 0 && file.stream) return -Errno.ESPIPE;
    if (!(length >= 0)) return -Errno.EINVAL;
    const offset = at < 0 ? description.offset : at;
    const most = Math.min(length, MAX_RW_COUNT);
    description.hold();
    let result: number = -Errno.EINVAL;
    if (writing) result = file.write ? file.write(this, address, most, offset) : result;
    else result = file.read ? file.read(this, address, most, offset) : result;
    if (at < 0 && result > 0) description.offset += result;
    description.put();
    return result;
  }

  private readiness(fd: number, events: number): number {
    const file = this.files.get(fd)?.file;
    if (!file) return Poll.NVAL;
    return (file.poll ? file.poll(this) : Poll.IN | Poll.OUT) & (events | Poll.ERR | Poll.HUP);
  }

  private pollAnswer(ready: number, timeoutMs: number): number {
    const { clock } = this.kernel;
    if (ready === 0 && timeoutMs !== 0) {
      if (timeoutMs < 0) return PENDING;
      if (this.pollDeadline < 0) {
        this.pollDeadline = clock.now + timeoutMs * 1e6;
        this.kernel.wakeAfter(timeoutMs * 1e6, this);
      }
      if (clock.now < this.pollDeadline) return PENDING;
    }
    this.pollDeadline = -1;
    return ready;
  }
}
