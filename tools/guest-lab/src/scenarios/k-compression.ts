import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { AnalyticsError } from '@siov/idxd-device/spec';
import type { Boot } from '../guest.js';
import type { Lab, Scenario } from '../lab.js';
import type { Server } from '../server.js';
import { analyticsQueues, configFile } from './queues.js';

/** The file is the driver's own module; this much of it is one request. zlib makes one block of a piece: the driver stops at the end of the first. */
const FILE = 'idxd.ko';
const PIECE = 16384;
/** What iaa_crypto can be told: whether the processor polls for the record or an interrupt comes, and whether it has each stream decompressed again. */
const modes = [
  { name: 'sync', sync: 'sync', verify: 1 },
  { name: 'async_irq', sync: 'async_irq', verify: 1 },
  { name: 'sync-unverified', sync: 'sync', verify: 0 },
  { name: 'async_irq-unverified', sync: 'async_irq', verify: 0 },
] as const;

const EIO = -5;
const EINVAL = -22;

/** `/modules/acomp_file` does its work when it is loaded. */
const script = (device: string) => `
acomp() {
  insmod /modules/acomp_file.ko driver=deflate-iaa piece=${PIECE} from=$1 to=$2 decompress=$3
  result=$(cat /sys/module/acomp_file/parameters/result)
  rmmod acomp_file
  return $((-result))
}
is_file() { cmp /tmp/plain /modules/${FILE} && echo same; }
through() {
  sed -n '/deflate-iaa/,/^$/p' /proc/crypto | send $1.algorithm
  cat /sys/bus/dsa/drivers/crypto/sync_mode /sys/bus/dsa/drivers/crypto/verify_compress | send $1.attributes
  ask begin
  acomp /modules/${FILE} /tmp/packed 0 && acomp /tmp/packed /tmp/plain 1 && is_file | send $1.own
  acomp /guest/zlib /tmp/plain 1 && is_file | send $1.zlib
  ask done
  acomp /guest/far /tmp/plain 1 || echo $result | send $1.far
  base64 -w 1024 /tmp/packed | send $1.packed
}
next() {
  unconfigure ${device}
  rmmod iaa_crypto
  insmod /modules/iaa_crypto.ko
  echo $2 > /sys/bus/dsa/drivers/crypto/sync_mode
  echo $3 > /sys/bus/dsa/drivers/crypto/verify_compress
  configure queues.json
  through $1
}
insmod /modules/deflate.ko
idxd
# As it comes: the driver sets a device of this kind up by itself.
insmod /modules/iaa_crypto.ko
cat /sys/bus/dsa/devices/wq0.0/state /sys/bus/dsa/devices/wq0.0/driver_name | send default
through default
${modes.map(({ name, sync, verify }) => `next ${name} ${sync} ${verify}`).join('\n')}
unconfigure ${device}
`;

interface Piece {
  readonly plain: Buffer;
  readonly packed: Buffer;
}
/** Pieces as module/acomp_file.c has them: packed and plain size, 32 bits each, little endian, in front of each. */
const join = (pieces: readonly Piece[]): Buffer =>
  Buffer.concat(
    pieces.flatMap(({ plain, packed }) => {
      const header = Buffer.alloc(8);
      header.writeUInt32LE(packed.length, 0);
      header.writeUInt32LE(plain.length, 4);
      return [header, packed];
    }),
  );
/** The plain file of a packed one, by zlib. */
function inflated(packed: Buffer): Buffer {
  const plain: Buffer[] = [];
  for (let at = 0; at < packed.length; ) {
    const size = packed.readUInt32LE(at);
    plain.push(inflateRawSync(packed.subarray(at + 8, at + 8 + size)));
    at += 8 + size;
  }
  return Buffer.concat(plain);
}
const deflated = (file: Buffer, windowBits: number): Piece[] =>
  Array.from({ length: Math.ceil(file.length / PIECE) }, (_, i) => {
    const plain = file.subarray(i * PIECE, (i + 1) * PIECE);
    return { plain, packed: deflateRawSync(plain, { windowBits }) };
  });

async function through(lab: Lab, server: Server, how: string, boot: Pick<Boot, 'cpus' | 'dma' | 'iommu'>): Promise<void> {
  const file = lab.module(FILE);
  const [half] = deflated(file.subarray(0, PIECE / 2), 12);
  const far = deflated(Buffer.concat([half!.plain, half!.plain]), 15);
  const files = {
    'queues.json': configFile(analyticsQueues(0, 2)),
    zlib: join(deflated(file, 12)),
    far: join(far),
  };
  const guest = await lab.guest({ servers: [server], files, script: script('iax0'), ...boot });
  const label = `${server.device}, ${how}`;
  lab.equal(`${label}: the queue that the driver sets up by itself`, guest.lines('default'), ['enabled', 'crypto']);
  for (const [i, { name, sync, verify }] of [{ name: 'default', sync: 'sync', verify: 1 }, ...modes].entries()) {
    lab.equal(`${label}, ${name}: attributes of the driver`, guest.lines(`${name}.attributes`), [sync, `${verify}`]);
    lab.holds(`${label}, ${name}: self-test passed`, /selftest *: passed/.test(guest.text(`${name}.algorithm`)));
    lab.equal(`${label}, ${name}: compressed and decompressed again`, guest.text(`${name}.own`), 'same');
    lab.equal(`${label}, ${name}: decompressed from zlib's`, guest.text(`${name}.zlib`), 'same');
    lab.equal(`${label}, ${name}: errno of a distance beyond the history`, Number(guest.text(`${name}.far`)), sync === 'sync' ? EINVAL : EIO);
    const packed = Buffer.from(guest.text(`${name}.packed`), 'base64');
    lab.holds(`${label}, ${name}: zlib inflates what was compressed`, inflated(packed).equals(file));
    const requests = 3 * Math.ceil(file.length / PIECE);
    if (name !== 'default') lab.iops[`${name}, ${label}`] = Math.round(requests / guest.stretches[i]!.wall);
  }
  const { log } = guest;
  lab.logged(log, /iaa_crypto now ENABLED/);
  lab.show(
    guest
      .lines('default.algorithm')
      .map((line) => line.replace(/\s*:\s*/, ' '))
      .filter((line) => /^(driver|module|selftest)/.test(line))
      .join(', '),
  );
  // The error that the device gives for it. The driver says so where it does not poll, and tries by software, whose history is shorter still.
  const errors = log.flatMap((line) => /falling back to deflate-generic decompress, analytics error code ([0-9a-f]+)/.exec(line)?.[1] ?? []);
  const distance = AnalyticsError.distanceRange.toString(16);
  lab.equal(`${label}: errors in the driver's words`, errors, [distance, distance]);

  const [counters] = await server.stop();
  const all = modes.length + 1;
  const pieces = Math.ceil(file.length / PIECE);
  const verified = 1 + modes.filter(({ verify }) => verify === 1).length;
  const least = all * (3 * pieces + 1) + verified * pieces;
  lab.holds(
    `${label}: descriptors that the device carried out (${counters?.descriptors}) are at least ${least}`,
    (counters?.descriptors ?? 0) >= least,
  );
  lab.equal(`${label}: MOVDIR64B carried out in the guest`, Number(guest.text('shim')), counters?.descriptors);
  lab.equal(`${label}: descriptors that failed: those with a distance beyond the history`, counters?.failed, all);
}

export const compression: Scenario = {
  id: 'k',
  name: 'compression',
  about:
    'iaa_crypto takes analytics accelerators of both versions, passes its self-test as deflate-iaa, and a file goes through both of its modes, there and back, to and from zlib',
  async run(lab) {
    await through(lab, await lab.serve('iax'), 'mapped', { cpus: 1 });
    await through(lab, await lab.serve('iax-2.0'), 'messages', { cpus: 2, dma: 'messages' });
    await through(lab, await lab.serve('iax-2.0'), 'behind VT-d', { cpus: 1, iommu: true });
  },
};
