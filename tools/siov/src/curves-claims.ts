/**
 * Twelve statements about DSA and its two userspace models that publications make or imply, each checked by runs of the model. What is found
 * is computed here and now; what a statement says stands beside it as bounds.
 */
import { Opcode } from '@siov/idxd-device/spec';
import { Client } from '@siov/idxd-driver/client';
import { hi, lo } from '@siov/layout';
import { type CostTable, callsByName, defaultCosts, hostFigures, type KernelInstance } from '@siov/stack';
import { bytesSource, MdevStack, openGuestQueue, Workload } from '@siov/stack/mdev';
import { openUacceQueue, UacceStack } from '@siov/stack/uacce';
import { Syscall, type UserTask } from '@siov/vfs';
import { processor } from './curves-data.js';
import { GIB, intoPages, Rig } from './curves-rig.js';
import { sizeText } from './options.js';

const K = 1024;
const M = K * K;
const IDLE = { step: () => 'wait' as const };
const POPULATED = 0x8022;

interface Part {
  readonly what: string;
  readonly found: string;
  readonly holds: boolean;
}
export interface Claim {
  readonly number: number;
  readonly text: string;
  readonly parts: readonly Part[];
  /** All parts do. */
  readonly holds: boolean;
}

/** A figure and the bounds that the statement gives it. */
const between = (what: string, found: number, low: number, high: number, unit = ''): Part => ({
  what: `${what} (${low === 0 ? `up to ${round(high)}` : high === Number.POSITIVE_INFINITY ? `from ${round(low)}` : `${round(low)} to ${round(high)}`}${unit})`,
  found: `${round(found)}${unit}`,
  holds: found >= low && found <= high,
});
const round = (x: number): string => (Math.abs(x) >= 100 ? x.toFixed(0) : String(Number(x.toPrecision(3))));
const size = (what: string, found: number | undefined, expected: number): Part => ({
  what: `${what} (${sizeText(expected)})`,
  found: found === undefined ? 'at no size' : sizeText(found),
  holds: found === expected,
});
const rising = (what: string, steps: readonly (readonly [name: string, value: number])[], unit: string): Part => ({
  what,
  found: steps.map(([name, value]) => `${name} ${round(value)}${unit}`).join(', '),
  holds: steps.every(([, value], i) => i === 0 || value > steps[i - 1]![1]),
});
const rate = (bytes: number, us: number): number => (bytes / us) * (1e6 / GIB);

export function claims(): Claim[] {
  const number = { next: 1 };
  const claim = (text: string, ...parts: readonly Part[]): Claim => ({ number: number.next++, text, parts, holds: parts.every((p) => p.holds) });
  const one = new Rig({ engines: 1 });
  const four = new Rig({ engines: 4 });
  return [...throughput(claim, one, four), pages(claim), alignment(claim), ...models(claim)];
}
type Make = (text: string, ...parts: readonly Part[]) => Claim;

function throughput(claim: Make, one: Rig, four: Rig): Claim[] {
  const sync = (op: 'memmove' | 'fill' | 'compare' | 'pattern', n: number): number => one.sync(op, n);
  const asynchronous = (n: number): number => rate(n, one.asynchronous('memmove', n));
  const memcpy = defaultCosts['cpu.memcpy'];
  const sizes = [K, 2 * K, 4 * K, 8 * K, 16 * K, 32 * K, 64 * K, 128 * K];
  /** The smallest size from which on the device is faster than the processor's series. */
  const wins = (ours: (n: number) => number, theirs: readonly number[]): number | undefined => {
    const small = processor.sizes.filter((n) => n <= 4 * K);
    const won = small.map((n, i) => ours(n) >= theirs[i]!);
    return small[won.lastIndexOf(false) + 1];
  };
  const batch = (n: number): number => four.batch('memmove', n);
  const perSecond = (['memmove', 'fill', 'compare', 'pattern', 'nop'] as const).map((op) => 1 / one.asynchronous(op, 64));
  const [async4k, async64k, async1m] = [asynchronous(4 * K), asynchronous(64 * K), asynchronous(M)];
  const [batch64k, batch1m] = [one.batch('memmove', 64 * K), one.batch('memmove', M)];
  const [oneBatch1k, fourBatch1k] = [one.batch('memmove', K), four.batch('memmove', K)];
  const overtaken = four.overtaking('memmove', 4 * M);
  const ceilings = [four.batch('memmove', M), four.batch('memmove', 64 * K), four.batch('memmove', 4 * K)].map((r) => (r * GIB) / 1e9);
  const meets = [rate(M, sync('memmove', M)), async1m, batch1m];
  const reuse = new Rig({ engines: 1, reuse: true });
  const huge = new Rig({ engines: 4, huge: true }).batch('memmove', 32 * K);
  return [
    claim(
      'one at a time loses to a cold copy by one core below 16 to 32 KiB; in flight it wins from 1 KiB, in batches from 512 B, in random order earlier',
      size(
        'one at a time wins from',
        sizes.find((n) => sync('memmove', n) * 1000 < memcpy.ns + (memcpy.nsPerByte ?? 0) * n),
        32 * K,
      ),
      size('in flight, against copies in sequence, from', wins(asynchronous, processor.sequential), K),
      size('in flight, against copies in random order, from', wins(asynchronous, processor.random), 512),
      size('in batches, in sequence, from', wins(batch, processor.sequential), 512),
      size('in batches, in random order, from', wins(batch, processor.random), 128),
    ),
    claim(
      'one thread on a shared queue submits about 5 million descriptors a second whatever the operation; more threads or batches fill the device at 4 KiB',
      between('slowest and fastest operation, least', Math.min(...perSecond), 4.5, 6, ' million/s'),
      between('most', Math.max(...perSecond), 4.5, 6, ' million/s'),
      between('rate at 4 KiB in units of that at 64 B', async4k / asynchronous(64), 57, 64.1),
      between(
        'two threads at 4 KiB, of the rate at 1 MiB',
        rate(4 * K, new Rig({ engines: 1, threads: 2 }).asynchronous('memmove', 4 * K)) / async1m,
        0.9,
        1.02,
      ),
      between('batches of four at 4 KiB, of the rate at 1 MiB', four.batch('memmove', 4 * K, 4) / async1m, 0.9, 1.02),
    ),
    claim(
      'batching matters below 8 KiB and not from 64 KiB up; at 1 MiB one at a time, in flight and in batches meet within 5 %',
      between('batches over single descriptors in flight at 1 KiB', oneBatch1k / asynchronous(K), 1.2, 10),
      between('at 4 KiB', one.batch('memmove', 4 * K) / async4k, 1.2, 10),
      between('at 64 KiB', batch64k / async64k, 0.98, 1.02),
      between('at 1 MiB, slowest of the three over the fastest', Math.min(...meets) / Math.max(...meets), 0.95, 1),
    ),
    claim(
      'more engines help small transfers only, never raise the ceiling of the device, and share it equally, so completions are out of order',
      between('four engines over one, batches of 1 KiB', fourBatch1k / oneBatch1k, 1.3, 2),
      between('of 64 KiB', four.batch('memmove', 64 * K) / batch64k, 0.98, 1.02),
      between('the most that four engines move', Math.max(...ceilings), 29, 31.5, ' GB/s'),
      between('what three engines move beside 4 MiB of the fourth, in units of that', (overtaken * 32 * K) / (4 * M), 2.55, 3.45),
      between('small batches that finish before the operation that was first', overtaken, 1, Number.POSITIVE_INFINITY),
    ),
    claim(
      'compare runs at half the rate of memmove; fill is the quickest',
      between('compare over memmove in batches of 1 MiB', one.batch('compare', M) / batch1m, 0.48, 0.52),
      between('fill of 64 B one at a time', sync('fill', 64), 0.44, 0.54, ' us'),
      rising(
        'in order',
        (['fill', 'pattern', 'compare', 'memmove'] as const).map((op) => [op, sync(op, 64)]),
        ' us',
      ),
    ),
    claim(
      'missed translations add at most 0.3 us to a small operation and less than 1 % to large ones in flight: page size hardly matters without faults',
      between('4 KiB on new pages against the same pages', sync('memmove', 4 * K) - reuse.sync('memmove', 4 * K), 0, 0.3, ' us'),
      between('batches of 32 KiB on 2 MiB pages against 4 KiB pages', huge / four.batch('memmove', 32 * K), 0.99, 1.01),
    ),
  ];
}

function alignment(claim: Make): Claim {
  const unaligned = (offset: number, n: number): number => new Rig({ engines: 1, offset }).asynchronous('memmove', n);
  const aligned64 = unaligned(0, 64);
  const aligned128k = unaligned(0, 128 * K);
  return claim(
    'a destination that is not aligned costs a fixed 0.18 to 0.54 us a descriptor, which is not seen above 64 KiB',
    between('aligned to 32 bytes, 64 B', unaligned(32, 64) - aligned64, 0.16, 0.2, ' us'),
    between('aligned to 8 bytes, 64 B', unaligned(8, 64) - aligned64, 0.5, 0.58, ' us'),
    between('aligned to 8 bytes, 1 KiB', unaligned(8, K) - unaligned(0, K), 0.5, 0.58, ' us'),
    between('aligned to 8 bytes at 128 KiB, of the aligned time', unaligned(8, 128 * K) / aligned128k, 0.99, 1.02),
  );
}

function pages(claim: Make): Claim {
  const perPage = (gib: number): number => (4096 / gib / GIB) * 1e6;
  const there = intoPages({ populated: true }, 256 * K, 16 * M);
  const blocked = intoPages({ blockOnFault: true }, 256 * K, 2 * M);
  const touched = intoPages({ touch: 'all' }, 256 * K, 16 * M);
  const resumed = intoPages({ resume: 128 * K }, 32 * K, 4 * M);
  const touch = perPage(touched) - perPage(there);
  const request = perPage(blocked) - perPage(there);
  // What each further 4 KiB page of guest memory adds to the set-up through VFIO: it is made (touched) and pinned.
  const setup = (bytes: number): number => new MdevStack({ ramBytes: 256 << 20, guestRamBytes: bytes, guestHugePages: false }).host.clock.now;
  const mapped = (setup(64 << 20) - setup(32 << 20)) / ((32 << 20) / 4096) / 1000;
  const pinned = mapped - defaultCosts['os.pageFault'].ns / 1000;
  return claim(
    'a page request costs 11 times a first touch by the processor, and cuts the rate 100 times; touching first, completing in part, or pinning avoid it',
    between('page request over first touch', request / touch, 8, 14),
    between('pages that are there over page requests', there / blocked, 70, 140),
    between('touching first over page requests', touched / blocked, 7, 13),
    between('touching first over completing in part and resuming', touched / resumed, 2, 4),
    between('a page of memory that is mapped through VFIO and was not there', mapped, 0.9, 1.5, ' us'),
    between('of it, pinning', pinned * 1000, 50, 100, ' ns'),
    between('share of pages that would fault from which on pinning wins', (100 * pinned) / request, 0.3, 0.7, ' %'),
  );
}

interface Machine {
  readonly task: UserTask;
  readonly client: Client;
  readonly now: () => number;
  readonly wait: (until: () => boolean) => void;
}
const on = (host: UacceStack['host'], task: UserTask, client: Client): Machine => ({
  task,
  client,
  now: () => host.clock.now,
  wait: (until) => void host.clock.wait(until),
});
/** Nanoseconds from the store to the record that is seen, one at a time on buffers that were used before. */
function latency(m: Machine, bytes: number, ready = () => {}): number {
  const from = m.task.mmap(0, 1 << 20, 3, POPULATED);
  const to = m.task.mmap(0, 1 << 20, 3, POPULATED);
  let sum = 0;
  for (let i = -4; i < 16; i++) {
    if (i === 0) ready();
    m.client.prepare(0, Opcode.memmove, hi(from), lo(from), hi(to), lo(to), bytes);
    const begin = m.now();
    m.client.submit(0);
    m.wait(() => m.client.poll(0) !== 0);
    if (i >= 0) sum += m.now() - begin;
  }
  return sum / 16;
}

/** The same with what happened meanwhile: exits, and reads of page-table walks. */
function counted(m: Machine & { readonly stack: UacceStack | MdevStack }, bytes: number): { ns: number; exits: number; reads: number } {
  // Everything was used once before: what the first use of memory costs is not the question.
  latency(m, bytes);
  const look = () => ({
    exits: m.stack instanceof MdevStack ? m.stack.traps : 0,
    reads: hostFigures(m.stack.host).walkReads!,
  });
  let before = look();
  const ns = latency(m, bytes, () => {
    before = look();
  });
  const after = look();
  return { ns, exits: after.exits - before.exits, reads: after.reads - before.reads };
}

function native(costs: CostTable = defaultCosts) {
  const stack = new UacceStack({ ramBytes: 128 << 20, costs });
  const task = stack.host.kernel.user.spawn(IDLE);
  const client = new Client(task, openUacceQueue(stack, 'dedicated')(task), { depth: 1 });
  return { stack, ...on(stack.host, task, client) };
}
function guest(costs: CostTable = defaultCosts) {
  const stack = new MdevStack({ ramBytes: 256 << 20, guestRamBytes: 64 << 20, costs });
  const task = stack.guest.user.spawn(IDLE);
  const client = new Client(task, openGuestQueue(stack)(task), { depth: 1 });
  return { stack, ...on(stack.host, task, client) };
}
/** Nanoseconds of one register read by the guest's kernel. */
function register(costs: CostTable): number {
  const { stack } = guest(costs);
  const bar = stack.guest.devices[0]!.bars.get(0)!;
  const from = stack.host.clock.now;
  bar.mmio.read(0x90, 4);
  return stack.host.clock.now - from;
}

/** Nanoseconds that a completion interrupt comes after the record, on the host by a store of messages, and in a guest. */
function interruptAfterRecord(where: 'msix' | 'ims' | 'guest'): number {
  const m = where === 'guest' ? guest() : native();
  const driver = m.stack instanceof MdevStack ? m.stack.guestDrivers[0]! : m.stack.driver;
  const wq = driver.wqs[0]!;
  let handled = 0;
  const { pasid } = m.task.mm as unknown as { pasid: number };
  const interrupt = driver.completionInterrupt(wq, pasid, () => handled++, where === 'guest' ? undefined : where);
  if (!interrupt) throw new Error(`there is no completion interrupt (${where})`);
  const client = new Client(m.task, { address: 0, mode: 'dedicated' }, { depth: 1, interruptHandle: interrupt.handle });
  client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
  const words = m.task.readStruct(client.descriptors, new Uint32Array(16));
  const kernel = m.stack instanceof MdevStack ? m.stack.vmm : m.stack.host;
  const portal = driver.portalFrame(wq, where === 'ims') * 4096;
  kernel.ioremap(portal).movdir64b?.(0, words, 0);
  m.wait(() => client.poll(0) !== 0);
  if (client.poll(0) !== 1) throw new Error(`a descriptor with an interrupt ended with status ${client.poll(0)}`);
  const record = m.now();
  m.wait(() => handled > 0);
  if (handled === 0) throw new Error(`the completion interrupt (${where}) never came`);
  return m.now() - record;
}

/** System calls of the host's processes that map memory for a device (and pin it), and that bind an address space. */
function setupCalls(kernel: KernelInstance): { readonly maps: number; readonly binds: number } {
  let [maps, binds] = [0, 0];
  for (const [name, n] of Object.entries(callsByName(kernel, Syscall))) {
    if (/MAP_DMA|IOAS_MAP/.test(name)) maps += n;
    if (/UACCE.*START/.test(name)) binds += n;
  }
  return { maps, binds };
}

function models(claim: Make): Claim[] {
  const host = native();
  const vm = guest();
  const small = latency(host, 64);
  const onHost = counted(host, 4096);
  const inGuest = counted(vm, 4096);
  // A hit of the device's cache needs no walk; then the rest must be equal.
  const furtherReads = Math.max(0, inGuest.reads - onHost.reads) / 16;
  const trapped = register(defaultCosts);
  const msix = interruptAfterRecord('msix');
  const ims = interruptAfterRecord('ims');
  const irqfd = interruptAfterRecord('guest');
  const one = new Rig({ engines: 1 });
  const worth = [4 * K, 8 * K, 16 * K, 32 * K, 64 * K, 128 * K, 256 * K, 512 * K, M].find((n) => msix / 1000 <= one.sync('memmove', n) / 4);
  const trap = (name: 'vm.trapIoeventfd' | 'vm.trapKernel' | 'vm.trap' | 'vm.trapVfioUser'): number =>
    register({ ...defaultCosts, 'vm.trap': defaultCosts[name] as unknown as (typeof defaultCosts)['vm.trap'] });
  const store = (() => {
    const m = guest();
    m.client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    m.client.submit(0);
    m.wait(() => m.client.poll(0) !== 0);
    m.client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    const from = m.now();
    m.client.submit(0);
    return m.now() - from;
  })();

  // The same work through both, on a queue of the same kind.
  const data = new Uint8Array(4 << 20);
  const work = (touch: boolean) => ({ source: bytesSource(data), op: 'memmove' as const, size: 64 * K, depth: 16, touch });
  const natively = (touch: boolean, flags = 0) => {
    const stack = new UacceStack({ ramBytes: 256 << 20, config: { wqs: [{ mode: 'dedicated', size: 128, group: 0, blockOnFault: true }] } });
    const program = new Workload({ ...work(touch), flags }, openUacceQueue(stack, 'dedicated'));
    stack.host.kernel.user.spawn(program);
    const from = hostFigures(stack.host);
    stack.host.kernel.user.run();
    return {
      ns: program.result.virtualNs,
      requests: hostFigures(stack.host).pageRequests! - from.pageRequests!,
      partial: program.result.resumes,
    };
  };
  const inVm = (touch: boolean) => {
    const stack = new MdevStack({ ramBytes: 256 << 20, guestRamBytes: 128 << 20 });
    const program = new Workload(work(touch), openGuestQueue(stack));
    stack.guest.user.spawn(program);
    const from = hostFigures(stack.host);
    stack.run();
    return {
      ns: program.result.virtualNs,
      requests: hostFigures(stack.host).pageRequests! - from.pageRequests!,
      partial: program.result.resumes,
    };
  };
  const [steadyHost, steadyGuest] = [natively(true), inVm(true)];
  const [faultyHost, faultyGuest] = [natively(false, 2), inVm(false)];
  const calls = { native: setupCalls(host.stack.host.kernel), guest: setupCalls(vm.stack.host.kernel) };
  return [
    claim(
      'in a guest with the portal mapped, submission and polling cause no exit; trapped registers cost 1 to 4 us, and a trapped portal would cost 2 to 5 times a small operation',
      between('exits of 16 operations in the guest', inGuest.exits, 0, 0),
      between('more time of 4 KiB in the guest than natively', inGuest.ns - onHost.ns, 0, furtherReads * defaultCosts['iommu.walkRead'].high, ' ns'),
      between('a trapped register', trapped / 1000, 1, 4.1, ' us'),
      between('a trap to the kernel over a whole operation of 64 B', trap('vm.trapKernel') / small, 2, 5),
      between('a trap to the VMM over a whole operation of 64 B', trapped / small, 2, 5),
    ),
    claim(
      'a completion interrupt adds a microsecond or more on the host, 0.5 to 2 us more in a guest, and the same by IMS as by MSI-X; it is worth it from 64 to 128 KiB',
      between('after the record on the host', msix / 1000, 1, 2.5, ' us'),
      between('by IMS more than by MSI-X', Math.abs(ims - msix), 0, 0, ' ns'),
      between('in a guest more than on the host', (irqfd - msix) / 1000, 0.5, 2, ' us'),
      between('size from which on it is a quarter of the operation or less', (worth ?? 0) / K, 64, 128, ' KiB'),
    ),
    claim(
      'mdev and uacce have the same steady data path; they differ in set-up (pinned memory) and in what an absent page does',
      between('time of the same work in the guest over natively', steadyGuest.ns / steadyHost.ns, 0.97, 1.03),
      between('page requests for absent pages, uacce', faultyHost.requests, 1, Number.POSITIVE_INFINITY),
      between('page requests for absent pages, mdev', faultyGuest.requests, 0, 0),
      between('partial completions for absent pages, mdev', faultyGuest.partial, 1, Number.POSITIVE_INFINITY),
      between('calls that map and pin memory at set-up, mdev', calls.guest.maps, 1, Number.POSITIVE_INFINITY),
      between('the same, uacce', calls.native.maps, 0, 0),
      between('calls that bind an address space, uacce', calls.native.binds, 1, 1),
    ),
    claim(
      'the order of ways into a device: mapped, ioeventfd, kernel, VMM, a server behind a socket',
      rising(
        'one access',
        [
          ['mapped', store],
          ['ioeventfd', trap('vm.trapIoeventfd')],
          ['kernel', trap('vm.trapKernel')],
          ['VMM', trap('vm.trap')],
          ['server', trap('vm.trapVfioUser')],
        ],
        ' ns',
      ),
    ),
  ];
}
