/** System calls of programs, each a packet: carried out by the simulated kernel, and answered. */
import { Errno, PENDING } from '@siov/layout/uapi';
import type { Accesses, ServerCounts } from './accesses.js';
import type { Files } from './files.js';
import type { Mappings } from './mappings.js';
import type { Native, NativeBytes } from './native.js';
import type { ServedFile, Session } from './session.js';
import { Op, PAYLOAD, POSITION, Reply, Request, WAIT } from './wire.js';

/** What goes on around a call. */
interface World {
  /** Everything that was closed or written before has happened. */
  barrier(): void;
  /** The device and the kernel have done what follows from a call; `changed`: attributes or nodes may show it. */
  happened(changed: boolean): void;
  close(file: ServedFile): void;
}

export class Calls {
  /** Where packets are received. */
  readonly packet: NativeBytes;
  readonly #native: Native;
  readonly #world: World;
  readonly #files: Files;
  readonly #accesses: Accesses;
  readonly #mappings: Mappings;
  readonly #counts: ServerCounts;
  readonly #inData: DataView;
  readonly #out: NativeBytes;
  readonly #outData: DataView;
  /** Calls that wait for something. */
  readonly #pending: { readonly session: Session; retry(): number }[] = [];

  constructor(native: Native, world: World, files: Files, accesses: Accesses, mappings: Mappings, counts: ServerCounts) {
    this.#native = native;
    this.#world = world;
    this.#files = files;
    this.#accesses = accesses;
    this.#mappings = mappings;
    this.#counts = counts;
    this.packet = native.allocate(Request.size + PAYLOAD);
    this.#inData = new DataView(this.packet.bytes.buffer, this.packet.bytes.byteOffset, this.packet.bytes.length);
    this.#out = native.allocate(4096);
    this.#outData = new DataView(this.#out.bytes.buffer, this.#out.bytes.byteOffset, Reply.size);
  }

  /** What the packet in `packet` asks for. */
  get op(): number {
    return this.#inData.getUint32(Request.op, true);
  }
  /** A word of it, as a number. */
  argument(i: number): number {
    return Number(this.#inData.getBigUint64(Request.args + i * 8, true));
  }
  reply(session: Session, result: number | bigint, ...args: readonly number[]): void {
    const data = this.#outData;
    data.setBigInt64(Reply.result, BigInt(result), true);
    for (let i = 0; i < 4; i++) data.setBigUint64(Reply.args + i * 8, BigInt(args[i] ?? 0), true);
    this.#native.send(session.connection, this.#out, Reply.size);
  }

  /** Carries out the packet in `packet`. */
  call(session: Session, length: number): void {
    const data = this.#inData;
    const { task } = session;
    const op = data.getUint32(Request.op, true);
    const word = (i: number): bigint => data.getBigUint64(Request.args + i * 8, true);
    const number = (i: number): number => Number(word(i));
    const id = Number(data.getBigUint64(Request.file, true));
    this.#counts.calls++;
    if (op === Op.open) {
      const bytes = this.packet.bytes.slice(Request.size, length);
      const flags = number(0);
      this.#world.barrier();
      this.#open(session, String.fromCharCode(...bytes), flags);
      return;
    }
    if (op === Op.sync) {
      const forgotten = this.#files.get(id);
      if (forgotten && forgotten.opener === session && forgotten.socket === undefined) this.#world.close(forgotten);
      this.#world.barrier();
      this.#world.happened(false);
      this.reply(session, 0);
      return;
    }
    if (op === Op.munmap) {
      const result = this.#mappings.unmap(session, number(0), number(1));
      this.#world.happened(true);
      this.reply(session, result);
      return;
    }
    if (op === Op.trap) {
      // What it stored before goes first.
      this.#accesses.posted(session);
      const result = this.#accesses.trap(session, number(0), number(1));
      const offer = this.#mappings.takeOffer();
      this.#world.happened(false);
      this.reply(session, result, offer?.start ?? 0, offer?.index ?? 0, offer ? 1 : 0);
      return;
    }
    if (op === Op.piece) {
      const found = this.#mappings.piece(session, number(0), number(1));
      if (found) this.reply(session, found.piece.fd, found.address, found.piece.length, found.prot, found.piece.at);
      else this.reply(session, -Errno.EINVAL);
      return;
    }
    const file = this.#files.get(id);
    const fd = file ? this.#files.descriptor(session, file) : -Errno.EBADF;
    if (!file || fd < 0) {
      this.reply(session, fd);
      return;
    }
    if (op === Op.mmap) {
      const mapped = this.#files.during(file, () => this.#mappings.map(session, fd, [number(0), number(1), number(2), number(3), number(4)]));
      this.#world.happened(false);
      if (typeof mapped === 'number') this.reply(session, mapped);
      else this.reply(session, 0, mapped.dontCopy ? 1 : 0, mapped.pieces);
      return;
    }
    if (op === Op.poll) {
      this.reply(session, this.#files.polled(file));
      return;
    }
    const [first, second, third] = [number(0), number(1), word(2)];
    const position = third === POSITION;
    const run = (): number => {
      switch (op) {
        case Op.ioctl:
          return task.ioctl(fd, first, second);
        case Op.read:
          return position ? task.read(fd, first, second) : task.pread(fd, first, second, Number(BigInt.asIntN(64, third)));
        case Op.write:
          return this.#accesses.writing(session, () =>
            position ? task.write(fd, first, second) : task.pwrite(fd, first, second, Number(BigInt.asIntN(64, third))),
          );
        default:
          return -Errno.ENOSYS;
      }
    };
    const call = (): number => this.#files.during(file, run);
    const result = call();
    this.#world.happened(op === Op.write || op === Op.ioctl);
    // Who reads has read the byte too.
    if (op === Op.read) this.#files.polled(file);
    if (result === PENDING && op === Op.read && this.#files.polls(file)) this.reply(session, -WAIT);
    else if (result === PENDING) this.#pending.push({ session, retry: call });
    else this.#finish(session, result);
  }

  /** Answers a call of a driver. A file that it gave the process gets its handle under the number that the driver knows. */
  #finish(session: Session, result: number): void {
    const given = session.installed.splice(0);
    // No ioctl gives two.
    const file = given.length === 1 && result >= 0 ? this.#files.keep(session, given[0]!, 'f', '') : undefined;
    if (typeof file === 'object') {
      this.reply(session, result, file.id, given[0]!);
      return;
    }
    for (const fd of given) session.task.close(fd);
    this.reply(session, given.length > 0 && result >= 0 ? -Errno.EMFILE : result);
  }

  #open(session: Session, path: string, flags: number): void {
    const file = this.#files.open(session, path, flags);
    if (typeof file === 'number') {
      this.reply(session, file);
      return;
    }
    this.#world.happened(file.kind === 'c');
    this.reply(session, file.id, file.kind.charCodeAt(0), file.rdev);
  }

  /** Calls that wait are tried again. */
  retry(): void {
    if (this.#pending.length === 0) return;
    for (const waiting of this.#pending.splice(0)) {
      const result = waiting.retry();
      if (result === PENDING) this.#pending.push(waiting);
      else this.#finish(waiting.session, result);
    }
  }
  /** A process ended: nobody waits for its calls. */
  forget(session: Session): void {
    for (let i = this.#pending.length - 1; i >= 0; i--) if (this.#pending[i]!.session === session) this.#pending.splice(i, 1);
  }
}
