/** DEVICE_FEATURE and migration data. vfio-user.rst, "VFIO_USER_DEVICE_FEATURE", "VFIO_USER_MIG_DATA_READ", "VFIO_USER_MIG_DATA_WRITE". */
import { Errno } from '@siov/layout/uapi';
import { DeviceFeature, FeatureFlag } from '@siov/vfio-mdev/uapi';
import { bitmapBytes } from './dirty.js';
import { MAX_DATA, MAX_LOG_RANGES } from './limits.js';
import { isPowerOfTwo } from './memory.js';
import type { CommandRow, Message, Session } from './session.js';
import { Command, Feature, FeatureMigration, FeatureState, LoggingRange, LoggingReport, LoggingStart, MigrationData } from './spec/protocol.js';

const HEAD = DeviceFeature.bytes;
const { GET, SET, PROBE, MASK } = FeatureFlag;

interface FeatureRow {
  readonly methods: number;
  /** Only for devices that can migrate. */
  readonly migration?: true;
  /** Data that a SET or GET brings, and that a GET takes away, in bytes. */
  readonly takes: number;
  readonly gives?: number;
  /** 0, or bytes of data in the reply of a GET; or -errno. */
  run(s: Session, m: Message, argsz: number): number;
}
const u32 = (m: Message, at: number): number => m.view.getUint32(m.at + at, true);
const u64 = (m: Message, at: number): number => u32(m, at) + u32(m, at + 4) * 2 ** 32;

const features: Readonly<Record<number, FeatureRow>> = {
  [Feature.MIGRATION]: {
    methods: GET,
    migration: true,
    takes: 0,
    gives: FeatureMigration.bytes,
    run(s) {
      s.payloadView.setUint32(HEAD, s.migration.flags, true);
      s.payloadView.setUint32(HEAD + 4, 0, true);
      return FeatureMigration.bytes;
    },
  },
  [Feature.MIG_DEVICE_STATE]: {
    methods: GET | SET,
    migration: true,
    takes: 0,
    gives: FeatureState.bytes,
    run(s, m) {
      if (u32(m, 4) & SET) return m.length < HEAD + FeatureState.bytes ? -Errno.EINVAL : s.migration.go(u32(m, HEAD));
      s.payloadView.setUint32(HEAD, s.migration.state, true);
      s.payloadView.setInt32(HEAD + 4, -1, true);
      return FeatureState.bytes;
    },
  },
  [Feature.DMA_LOGGING_START]: { methods: SET, takes: LoggingStart.bytes, run: startLogging },
  // Some clients send a structure along; it says nothing.
  [Feature.DMA_LOGGING_STOP]: {
    methods: SET,
    takes: 0,
    run(s) {
      s.dma.log = undefined;
      return 0;
    },
  },
  [Feature.DMA_LOGGING_REPORT]: { methods: GET, takes: LoggingReport.bytes, run: report },
};

function startLogging(s: Session, m: Message): number {
  const pageSize = u64(m, HEAD);
  const count = u32(m, HEAD + 8);
  const end = HEAD + LoggingStart.bytes + count * LoggingRange.bytes;
  if (count > MAX_LOG_RANGES) return -Errno.E2BIG;
  if (!isPowerOfTwo(pageSize) || m.length < end) return -Errno.EINVAL;
  if (s.dma.log) return s.dma.log.pageSize === pageSize ? 0 : -Errno.EINVAL;
  const ranges = Array.from({ length: count }, (_, i) => {
    const at = HEAD + LoggingStart.bytes + i * LoggingRange.bytes;
    return { iova: u64(m, at), length: u64(m, at + 8) };
  });
  const sorted = [...ranges].sort((a, b) => a.iova - b.iova);
  if (ranges.some((r) => r.iova + r.length > 2 ** 53)) return -Errno.EOVERFLOW;
  if (ranges.some((r) => r.length === 0 || r.iova % pageSize || r.length % pageSize)) return -Errno.EINVAL;
  if (sorted.some((r, i) => i > 0 && r.iova < sorted[i - 1]!.iova + sorted[i - 1]!.length)) return -Errno.EINVAL;
  s.dma.startLog(pageSize, ranges);
  return 0;
}

function report(s: Session, m: Message, argsz: number): number {
  const [iova, length, pageSize] = [u64(m, HEAD), u64(m, HEAD + 8), u64(m, HEAD + 16)];
  if (!s.dma.log || !isPowerOfTwo(pageSize) || length === 0 || iova + length > 2 ** 53) return -Errno.EINVAL;
  if (s.peer.reportExact) {
    const mapping = s.dma.exact(iova, length);
    if (!mapping) return s.dma.overlap(iova, length) ? -Errno.EOPNOTSUPP : -Errno.ENOENT;
    if (!mapping.backing) return -Errno.EINVAL;
  }
  const bytes = bitmapBytes(length, pageSize);
  const need = LoggingReport.bytes + bytes;
  if (HEAD + need > argsz || HEAD + need > MAX_DATA) return -Errno.EINVAL;
  for (let i = 0; i < LoggingReport.bytes; i += 4) s.payloadView.setUint32(HEAD + i, u32(m, HEAD + i), true);
  const at = HEAD + LoggingReport.bytes;
  s.payload.fill(0, at, at + bytes);
  s.dma.log.report(iova, length, pageSize, s.payload.subarray(at, at + bytes));
  return need;
}

function feature(s: Session, m: Message): number {
  const argsz = DeviceFeature.get.argsz(m.words, 0);
  const flags = DeviceFeature.get.flags(m.words, 0);
  const methods = flags & (GET | SET);
  if (argsz < HEAD || (flags & ~(MASK | GET | SET | PROBE)) !== 0 || (flags & (GET | SET | PROBE)) === 0) return -Errno.EINVAL;
  if (methods === (GET | SET) && !(flags & PROBE)) return -Errno.EINVAL;
  const row = features[flags & MASK];
  if (!row || (row.migration && !s.migration.offered)) return -s.peer.unknownFeature;
  if ((methods & row.methods) !== methods) return -Errno.EINVAL;
  let data = 0;
  if (!(flags & PROBE)) {
    if (m.length < HEAD + row.takes || (methods & GET && argsz < HEAD + (row.gives ?? 0))) return -Errno.EINVAL;
    data = row.run(s, m, argsz);
    if (data < 0) return data;
  }
  // Set and probe: the request's payload as it was. Get: the data with the structure before them, and argsz for both.
  if (data === 0) s.payload.set(m.bytes.subarray(m.at, m.at + m.length));
  else {
    s.payloadView.setUint32(0, HEAD + data, true);
    s.payloadView.setUint32(4, flags, true);
  }
  return data === 0 ? m.length : HEAD + data;
}

const { get, bytes: DATA_HEAD } = MigrationData;

function dataRead(s: Session, m: Message): number {
  const size = get.size(m.words, 0);
  const limit = Math.min(MAX_DATA, s.client!.maxDataXferSize);
  if (size > limit || get.argsz(m.words, 0) < DATA_HEAD + size) return -Errno.EINVAL;
  const done = s.migration.read(s.payload.subarray(DATA_HEAD, DATA_HEAD + size));
  if (done < 0) return done;
  s.payloadView.setUint32(0, DATA_HEAD + done, true);
  s.payloadView.setUint32(4, done, true);
  return DATA_HEAD + done;
}

function dataWrite(s: Session, m: Message): number {
  const size = get.size(m.words, 0);
  if (size > MAX_DATA || m.length < DATA_HEAD + size || get.argsz(m.words, 0) < DATA_HEAD + size) return -Errno.EINVAL;
  const done = s.migration.write(m.bytes.subarray(m.at + DATA_HEAD, m.at + DATA_HEAD + size));
  return done === size ? 0 : done < 0 ? done : -Errno.EINVAL;
}

export const featureCommands = {
  [Command.DEVICE_FEATURE]: { bytes: HEAD, stopped: true, run: feature },
  [Command.MIG_DATA_READ]: { bytes: DATA_HEAD, stopped: true, run: dataRead },
  [Command.MIG_DATA_WRITE]: { bytes: DATA_HEAD, run: dataWrite },
} satisfies Record<number, CommandRow>;
