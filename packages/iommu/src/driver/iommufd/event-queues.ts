/**
 * Files that user space reads events from: page faults, which it answers by writing, and what a virtual IOMMU reports. linux/iommufd.h,
 * IOMMU_FAULT_QUEUE_ALLOC, IOMMU_VEVENTQ_ALLOC.
 */
import { NO_PASID } from '@siov/layout/pcie';
import { Errno, Poll } from '@siov/layout/uapi';
import type { OpenFile, Task } from '../../ports.js';
import { PageAnswer, PageAnswerCode, PageFault, PageFaultFlag, PageFaultPermission, VeventFlag, VeventHeader } from '../../spec/iommufd.js';
import type { AttachHandle, PageRequestEvent } from '../types.js';

/** Tasks that poll. A wake-up says "look again". */
class Pollers {
  private tasks = new Set<Task>();
  add(task: Task): void {
    this.tasks.add(task);
  }
  wake(): void {
    if (this.tasks.size === 0) return;
    const { tasks } = this;
    this.tasks = new Set();
    for (const task of tasks) task.wakeUp?.();
  }
}

/** Page requests that are asked and answered together. */
interface FaultGroup {
  readonly requests: readonly PageRequestEvent[];
  readonly handle: AttachHandle;
}
/** Answers a group: PageResponse codes. */
export type Answer = (request: PageRequestEvent, code: number) => void;

export class FaultQueue implements OpenFile {
  readonly stream = true;
  private readonly answer: Answer;
  private readonly closed: () => void;
  private waiting: FaultGroup[] = [];
  /** Read, but not answered: by cookie. */
  private readonly asked = new Map<number, FaultGroup>();
  private nextCookie = 1;
  private isClosed = false;
  private readonly pollers = new Pollers();

  constructor(answer: Answer, closed: () => void) {
    this.answer = answer;
    this.closed = closed;
  }
  /** Groups that nobody answered. */
  get pending(): number {
    return this.waiting.length + this.asked.size;
  }

  add(requests: readonly PageRequestEvent[], handle: AttachHandle): void {
    this.waiting.push({ requests, handle });
    if (this.isClosed) this.drop();
    else this.pollers.wake();
  }
  /** Those of an attachment that is gone, or all: answered Invalid Request. */
  drop(requesterId?: number, pasid?: number): void {
    const gone = ({ requests: [one] }: FaultGroup): boolean =>
      requesterId === undefined || (one!.requesterId === requesterId && one!.pasid === pasid);
    const dropped = this.waiting.filter(gone);
    this.waiting = this.waiting.filter((group) => !gone(group));
    for (const [cookie, group] of this.asked) if (gone(group) && this.asked.delete(cookie)) dropped.push(group);
    for (const { requests } of dropped) this.answer(requests[0]!, PageAnswerCode.INVALID);
  }

  /** Whole groups, as many as fit. */
  read(task: Task, address: number, length: number): number {
    if (length % PageFault.bytes) return -Errno.ESPIPE;
    let done = 0;
    for (let group = this.waiting[0]; group; group = this.waiting[0]) {
      const bytes = group.requests.length * PageFault.bytes;
      if (bytes > length - done) break;
      const cookie = this.nextCookie;
      const words = new Uint32Array(bytes / 4);
      for (const [i, request] of group.requests.entries())
        compose(words, (i * PageFault.bytes) / 4, request, group.handle, cookie, i === group.requests.length - 1);
      if (task.copyOut(address + done, new Uint8Array(words.buffer)) < 0) return done || -Errno.EFAULT;
      this.waiting.shift();
      this.asked.set(cookie, group);
      this.nextCookie = cookie === 0xffff_ffff ? 1 : cookie + 1;
      done += bytes;
    }
    return done;
  }

  write(task: Task, address: number, length: number): number {
    if (length % PageAnswer.bytes) return -Errno.ESPIPE;
    const words = new Uint32Array(PageAnswer.bytes / 4);
    for (let done = 0; done < length; done += PageAnswer.bytes) {
      if (task.copyIn(address + done, new Uint8Array(words.buffer)) < 0) return done || -Errno.EFAULT;
      const code = PageAnswer.get.code(words, 0);
      const cookie = PageAnswer.get.cookie(words, 0);
      const group = code === PageAnswerCode.SUCCESS || code === PageAnswerCode.INVALID ? this.asked.get(cookie) : undefined;
      if (!group) return done || -Errno.EINVAL;
      this.asked.delete(cookie);
      this.answer(group.requests[0]!, code);
    }
    return length;
  }

  poll(task: Task): number {
    this.pollers.add(task);
    return Poll.OUT | (this.waiting.length ? Poll.IN : 0);
  }
  close(): void {
    this.isClosed = true;
    this.drop();
    this.closed();
  }
}

function compose(words: Uint32Array, at: number, request: PageRequestEvent, handle: AttachHandle, cookie: number, last: boolean): void {
  const { set } = PageFault;
  const { READ, WRITE, EXEC, PRIV } = PageFaultPermission;
  const { access } = request;
  set.flags(words, at, (handle.pasid === NO_PASID ? 0 : PageFaultFlag.PASID_VALID) | (last ? PageFaultFlag.LAST_PAGE : 0));
  set.deviceId(words, at, handle.deviceId);
  set.pasid(words, at, Math.max(handle.pasid, 0));
  set.group(words, at, request.group);
  set.permissions(words, at, (request.reads === false ? 0 : READ) | (access & 1 ? WRITE : 0) | (access & 4 ? EXEC : 0) | (access & 2 ? PRIV : 0));
  set.addressLow(words, at, request.lo >>> 0);
  set.addressHigh(words, at, request.hi >>> 0);
  set.cookie(words, at, cookie);
}

interface Event {
  readonly sequence: number;
  /** Absent: a record that events were lost. */
  readonly data: Uint8Array | undefined;
}
/** Events of one type of a virtual IOMMU, `depth` at most; then a record says that some are lost. */
export class EventQueue implements OpenFile {
  readonly stream = true;
  private readonly depth: number;
  private readonly closed: () => void;
  private events: Event[] = [];
  private sequence = 0;
  private readonly pollers = new Pollers();

  constructor(depth: number, closed: () => void) {
    this.depth = depth;
    this.closed = closed;
  }

  /** Its number goes on when there is no room for it. */
  add(data: Uint8Array): void {
    const { sequence } = this;
    this.sequence = (sequence + 1) & 0x7fff_ffff;
    const full = this.events.filter((event) => event.data).length >= this.depth;
    // The record of lost events is the last one, with the number of the last that went.
    if (this.events.length && this.events.at(-1)!.data === undefined) this.events.pop();
    this.events.push({ sequence, data: full ? undefined : data.slice() });
    this.pollers.wake();
  }

  read(task: Task, address: number, length: number): number {
    let done = 0;
    if (this.events.length && length < VeventHeader.bytes) return -Errno.EINVAL;
    for (let event = this.events[0]; event; event = this.events[0]) {
      const bytes = new Uint8Array(VeventHeader.bytes + (event.data?.length ?? 0));
      if (bytes.length > length - done) return done || -Errno.EINVAL;
      const header = new Uint32Array(VeventHeader.bytes / 4);
      VeventHeader.set.flags(header, 0, event.data ? 0 : VeventFlag.LOST_EVENTS);
      VeventHeader.set.sequence(header, 0, event.sequence);
      bytes.set(new Uint8Array(header.buffer));
      bytes.set(event.data ?? [], VeventHeader.bytes);
      if (task.copyOut(address + done, bytes) < 0) return done || -Errno.EFAULT;
      this.events.shift();
      done += bytes.length;
    }
    return done;
  }
  poll(task: Task): number {
    this.pollers.add(task);
    return this.events.length ? Poll.IN : 0;
  }
  close(): void {
    this.closed();
  }
}
