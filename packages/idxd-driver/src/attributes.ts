/**
 * The attributes of devices, groups, engines and queues: what each shows, and the rules by which a written text is refused, in the kernel's
 * order. Documentation/ABI/stable/sysfs-driver-dma-idxd; Linux drivers/dma/idxd/sysfs.c.
 */
import { Errno } from '@siov/layout/uapi';
import type { IdxdDriver, Wq } from './driver.js';
import { bitmap, boolean, integer, line, showBitmap } from './parse.js';
import type { Attribute } from './ports.js';
import { type GroupSettings, trafficClassesAreFixed, type WqSettings } from './settings.js';
import { CDEV_MAJOR, Limit } from './spec.js';

/** What an attribute belongs to: the device itself, or one of its parts by index. */
interface Part {
  readonly d: IdxdDriver;
  readonly index: number;
}
interface Input {
  readonly text: string;
  value: number;
}
/** 0: go on with the next; negative: the errno that the writer gets. */
type Step = (on: Part, input: Input) => number;
type Row = readonly [show: (on: Part) => string | number | boolean, ...store: Step[]];
type Table = { readonly [attribute: string]: Row };

const wqOf = ({ d, index }: Part): WqSettings => d.settings.wqs[index]!;
const groupOf = ({ d, index }: Part): GroupSettings => d.settings.groups[index]!;
const queueOf = ({ d, index }: Part): Wq | undefined => d.wqs.find((wq) => wq.index === index);

// Rules that many attributes share.
const refuse =
  (errno: number, broken: (on: Part, value: number, text: string) => boolean): Step =>
  (on, { value, text }) =>
    broken(on, value, text) ? -errno : 0;
const act =
  (does: (on: Part, value: number, text: string) => void): Step =>
  (on, { value, text }) => {
    does(on, value, text);
    return 0;
  };
const number =
  (base: 0 | 10, signed: boolean, bits = 64): Step =>
  (_, input) => {
    input.value = integer(input.text, base, signed);
    return Number.isNaN(input.value) || input.value >= 2 ** bits ? -Errno.EINVAL : 0;
  };
const unsigned = number(10, false);
const signed = number(10, true);
const flag: Step = (_, input) => {
  input.value = boolean(input.text);
  return Math.min(input.value, 0);
};
/** A size: not 0, and rounded up to a power of two. */
const powerOfTwo: Step = (on, input) => {
  if (number(0, false)(on, input) !== 0 || input.value === 0) return -Errno.EINVAL;
  input.value = 2 ** Math.ceil(Math.log2(input.value));
  return 0;
};
const configurable = refuse(Errno.EPERM, ({ d }) => !d.capabilities.configurable);
const deviceDisabled = refuse(Errno.EPERM, ({ d }) => d.enabled);
const queueEnabled = (on: Part): boolean => queueOf(on)?.enabled === true || queueOf(on)?.driver !== undefined;
const queueDisabled = refuse(Errno.EPERM, queueEnabled);
const queueDisabledElseNoDevice = refuse(Errno.ENXIO, queueEnabled);
const groupExists = refuse(Errno.EINVAL, ({ d }, id) => id < -1 || id >= d.capabilities.groups);
const word = (text: string): string => line(text);

const names = (on: Part, kind: 'wq' | 'engine'): string => {
  const { settings, id } = on.d;
  const groups = kind === 'wq' ? settings.wqs.map((wq) => wq.group) : settings.engines;
  return groups.flatMap((group, i) => (group === on.index ? [`${kind}${id}.${i}`] : [])).join(' ');
};
const hex = (n: number | bigint): string => `0x${n.toString(16)}`;

// --- device

const readBufferLimit: Row = [
  ({ d }) => d.settings.readBufferLimit,
  unsigned,
  deviceDisabled,
  configurable,
  refuse(Errno.EPERM, ({ d }) => !d.capabilities.readBufferLimit),
  refuse(Errno.EINVAL, ({ d }, value) => value > d.capabilities.readBuffers),
  act(({ d }, value) => {
    d.settings.readBufferLimit = value;
  }),
];
const maxReadBuffers: Row = [({ d }) => d.capabilities.readBuffers];
export const deviceAttributes = {
  version: [({ d }) => hex(d.capabilities.version)],
  max_groups: [({ d }) => d.capabilities.groups],
  max_work_queues: [({ d }) => d.capabilities.wqs],
  max_work_queues_size: [({ d }) => d.capabilities.totalWqSize],
  max_engines: [({ d }) => d.capabilities.engines],
  /** The model has one node and does not say which. */
  numa_node: [() => -1],
  max_batch_size: [({ d }) => 2 ** d.capabilities.maxBatchShift],
  max_transfer_size: [({ d }) => 2 ** d.capabilities.maxTransferShift],
  op_cap: [({ d }) => showBitmap(d.capabilities.operationMask)],
  gen_cap: [({ d }) => hex((BigInt(d.capabilities.genCapHigh) << 32n) | BigInt(d.capabilities.genCapLow))],
  configurable: [({ d }) => d.capabilities.configurable],
  clients: [({ d }) => d.wqs.reduce((sum, wq) => sum + wq.clients, 0)],
  pasid_enabled: [({ d }) => d.capabilities.pasid],
  state: [({ d }) => (d.halted ? 'halted' : d.enabled ? 'enabled' : 'disabled')],
  errors: [({ d }) => showBitmap(d.lastError)],
  max_read_buffers: maxReadBuffers,
  max_tokens: maxReadBuffers,
  read_buffer_limit: readBufferLimit,
  token_limit: readBufferLimit,
  cdev_major: [() => CDEV_MAJOR],
  cmd_status: [
    ({ d }) => hex(d.commandStatus),
    act(({ d }) => {
      d.commandStatus = 0;
    }),
  ],
  event_log_size: [
    ({ d }) => d.settings.eventLogSize,
    unsigned,
    deviceDisabled,
    configurable,
    refuse(Errno.EINVAL, (_, value) => value < Limit.eventLogMin || value > Limit.eventLogMax),
    act(({ d }, value) => {
      d.settings.eventLogSize = value;
    }),
  ],
  iaa_cap: [({ d }) => hex((BigInt(d.capabilities.iaaCap![1]!) << 32n) | BigInt(d.capabilities.iaaCap![0]!))],
} as const satisfies Table;

// --- groups

const freeReadBuffers = ({ d }: Part): number =>
  d.capabilities.readBuffers - d.settings.groups.reduce((sum, group) => sum + group.readBuffersReserved, 0);
const enginesOf = (on: Part): number => on.d.settings.engines.filter((group) => group === on.index).length;
const readBuffersReserved: Row = [
  (on) => groupOf(on).readBuffersReserved,
  unsigned,
  configurable,
  deviceDisabled,
  refuse(Errno.EINVAL, (on, value) => value > freeReadBuffers(on) + groupOf(on).readBuffersReserved),
  act((on, value) => {
    groupOf(on).readBuffersReserved = value;
  }),
];
const readBuffersAllowed: Row = [
  (on) => groupOf(on).readBuffersAllowed,
  unsigned,
  configurable,
  deviceDisabled,
  refuse(Errno.EINVAL, (on, value) => value < 4 * enginesOf(on) || value > groupOf(on).readBuffersReserved + freeReadBuffers(on)),
  act((on, value) => {
    groupOf(on).readBuffersAllowed = value;
  }),
];
const useReadBufferLimit: Row = [
  (on) => groupOf(on).useReadBufferLimit,
  unsigned,
  configurable,
  deviceDisabled,
  refuse(Errno.EPERM, ({ d }) => d.settings.readBufferLimit === 0),
  act((on, value) => {
    groupOf(on).useReadBufferLimit = value !== 0;
  }),
];
const trafficClass = (key: 'trafficClassA' | 'trafficClassB'): Row => [
  (on) => groupOf(on)[key],
  signed,
  configurable,
  deviceDisabled,
  refuse(Errno.EPERM, ({ d }) => trafficClassesAreFixed(d.capabilities)),
  refuse(Errno.EINVAL, (_, value) => value < 0 || value > Limit.trafficClass),
  act((on, value) => {
    groupOf(on)[key] = value;
  }),
];
/** By which fraction of the most an engine may have in progress: 1, a half, a quarter, an eighth. */
const progressLimit = (key: 'descriptorLimit' | 'batchLimit'): Row => [
  (on) => groupOf(on)[key],
  signed,
  refuse(Errno.EINVAL, (_, value) => value < 0 || value > 3),
  act((on, value) => {
    groupOf(on)[key] = value;
  }),
];
export const groupAttributes = {
  work_queues: [(on) => names(on, 'wq')],
  engines: [(on) => names(on, 'engine')],
  use_read_buffer_limit: useReadBufferLimit,
  use_token_limit: useReadBufferLimit,
  read_buffers_allowed: readBuffersAllowed,
  tokens_allowed: readBuffersAllowed,
  read_buffers_reserved: readBuffersReserved,
  tokens_reserved: readBuffersReserved,
  traffic_class_a: trafficClass('trafficClassA'),
  traffic_class_b: trafficClass('trafficClassB'),
  desc_progress_limit: progressLimit('descriptorLimit'),
  batch_progress_limit: progressLimit('batchLimit'),
} as const satisfies Table;

// --- engines

export const engineAttributes = {
  group_id: [
    ({ d, index }) => d.settings.engines[index]!,
    signed,
    configurable,
    groupExists,
    act(({ d, index }, value) => {
      d.settings.engines[index] = value;
    }),
  ],
} as const satisfies Table;

// --- work queues

const TYPES = ['none', 'kernel', 'user', 'mdev'] as const;
const byteLength = (text: string): number => text.split('\0', 1)[0]!.length;
export const wqAttributes = {
  clients: [(on) => queueOf(on)?.clients ?? 0],
  state: [(on) => (queueOf(on)?.enabled ? 'enabled' : 'disabled')],
  group_id: [
    (on) => wqOf(on).group,
    signed,
    configurable,
    queueDisabled,
    groupExists,
    act((on, value) => {
      wqOf(on).group = value;
    }),
  ],
  mode: [
    (on) => wqOf(on).mode,
    configurable,
    queueDisabled,
    refuse(Errno.EINVAL, (_, _value, text) => !['dedicated', 'shared'].includes(word(text))),
    act((on, _value, text) => {
      wqOf(on).mode = word(text) as WqSettings['mode'];
      if (wqOf(on).mode === 'dedicated') wqOf(on).threshold = 0;
    }),
  ],
  size: [
    (on) => wqOf(on).size,
    unsigned,
    configurable,
    deviceDisabled,
    refuse(Errno.EINVAL, (on, value) => on.d.settings.wqs.reduce((sum, wq) => sum + wq.size, value - wqOf(on).size) > on.d.capabilities.totalWqSize),
    act((on, value) => {
      wqOf(on).size = value;
    }),
  ],
  priority: [
    (on) => wqOf(on).priority,
    unsigned,
    configurable,
    queueDisabled,
    refuse(Errno.EINVAL, (_, value) => value > Limit.priority),
    act((on, value) => {
      wqOf(on).priority = value;
    }),
  ],
  block_on_fault: [
    (on) => wqOf(on).blockOnFault,
    refuse(Errno.EOPNOTSUPP, ({ d }) => !d.capabilities.blockOnFault),
    configurable,
    queueDisabledElseNoDevice,
    flag,
    refuse(Errno.EOPNOTSUPP, (on, value) => value === 1 && wqOf(on).prsDisable),
    act((on, value) => {
      wqOf(on).blockOnFault = value === 1;
    }),
  ],
  threshold: [
    (on) => wqOf(on).threshold,
    number(0, false, 32),
    refuse(Errno.EINVAL, (on, value) => value === 0 || value > wqOf(on).size),
    configurable,
    queueDisabledElseNoDevice,
    refuse(Errno.EINVAL, (on) => wqOf(on).mode === 'dedicated'),
    act((on, value) => {
      wqOf(on).threshold = value;
    }),
  ],
  type: [
    (on) => wqOf(on).type,
    queueDisabled,
    refuse(Errno.EINVAL, (_, _value, text) => !(TYPES as readonly string[]).includes(word(text))),
    act((on, _value, text) => {
      const wq = wqOf(on);
      if (wq.type !== word(text)) wq.name = '';
      wq.type = word(text) as WqSettings['type'];
    }),
  ],
  name: [
    (on) => wqOf(on).name,
    queueDisabled,
    refuse(Errno.EINVAL, (_, _value, text) => byteLength(text) === 0 || byteLength(text) > Limit.name),
    act((on, _value, text) => {
      wqOf(on).name = text.split('\0', 1)[0]!.trim();
    }),
  ],
  driver_name: [
    (on) => wqOf(on).driverName,
    queueDisabled,
    refuse(Errno.EINVAL, (_, _value, text) => byteLength(text) === 0 || byteLength(text) > Limit.driverName),
    act((on, _value, text) => {
      wqOf(on).driverName = text.split('\0', 1)[0]!.trim();
    }),
  ],
  cdev_minor: [(on) => queueOf(on)?.minor ?? -Errno.ENXIO],
  max_transfer_size: [
    (on) => wqOf(on).maxTransferSize,
    configurable,
    queueDisabled,
    powerOfTwo,
    refuse(Errno.EINVAL, ({ d }, value) => value > 2 ** d.capabilities.maxTransferShift),
    act((on, value) => {
      wqOf(on).maxTransferSize = value;
    }),
  ],
  max_batch_size: [
    (on) => wqOf(on).maxBatchSize,
    configurable,
    queueDisabled,
    powerOfTwo,
    refuse(Errno.EINVAL, ({ d }, value) => value > 2 ** d.capabilities.maxBatchShift),
    act((on, value) => {
      wqOf(on).maxBatchSize = value;
    }),
  ],
  ats_disable: [
    (on) => wqOf(on).atsDisable,
    queueDisabled,
    configurable,
    flag,
    act((on, value) => {
      wqOf(on).atsDisable = value === 1;
    }),
  ],
  prs_disable: [
    (on) => wqOf(on).prsDisable,
    queueDisabled,
    refuse(Errno.EOPNOTSUPP, ({ d }) => !d.capabilities.prsControl),
    flag,
    act((on, value) => {
      wqOf(on).prsDisable = value === 1;
      if (value === 1) wqOf(on).blockOnFault = false;
    }),
  ],
  occupancy: [({ d, index }) => (d.capabilities.occupancy ? d.occupancy(index) : -Errno.EOPNOTSUPP)],
  enqcmds_retries: [
    (on) => (wqOf(on).mode === 'dedicated' ? -Errno.EOPNOTSUPP : wqOf(on).enqcmdsRetries),
    refuse(Errno.EOPNOTSUPP, (on) => wqOf(on).mode === 'dedicated'),
    number(10, false, 32),
    act((on, value) => {
      wqOf(on).enqcmdsRetries = Math.min(value, Limit.enqcmdsRetries);
    }),
  ],
  op_config: [
    (on) => showBitmap(wqOf(on).operations),
    queueDisabled,
    (on, { text }) => {
      const mask = new Uint32Array(Limit.operations / 32);
      const error = bitmap(text, mask);
      if (error !== 0) return error;
      if (mask.some((bits, i) => (bits & ~on.d.capabilities.operationMask[i]!) !== 0)) return -Errno.EINVAL;
      wqOf(on).operations.set(mask);
      return 0;
    },
  ],
} as const satisfies Table;

const dsaAlone = (d: IdxdDriver): boolean => d.capabilities.type === 'dsa';
/** Attributes that are there only where the device has what they are about. */
const needs: { readonly [attribute: string]: (d: IdxdDriver) => boolean } = {
  event_log_size: (d) => d.capabilities.eventLog,
  desc_progress_limit: (d) => d.capabilities.progressLimit,
  batch_progress_limit: (d) => d.capabilities.progressLimit,
  ats_disable: (d) => d.capabilities.atsControl,
  prs_disable: (d) => d.capabilities.prsControl,
  op_config: (d) => d.capabilities.operationConfig,
  iaa_cap: (d) => d.capabilities.iaaCap !== undefined,
  max_batch_size: dsaAlone,
  max_read_buffers: dsaAlone,
  max_tokens: dsaAlone,
  read_buffer_limit: dsaAlone,
  token_limit: dsaAlone,
  use_read_buffer_limit: dsaAlone,
  use_token_limit: dsaAlone,
  read_buffers_allowed: dsaAlone,
  tokens_allowed: dsaAlone,
  read_buffers_reserved: dsaAlone,
  tokens_reserved: dsaAlone,
};

/** The attributes of one part, for a directory of sysfs. */
export function attributesOf(table: Table, on: Part): [name: string, attribute: Attribute][] {
  return Object.entries(table)
    .filter(([name]) => needs[name]?.(on.d) ?? true)
    .map(([name, [show, ...steps]]) => [
      name,
      {
        show() {
          const shown = show(on);
          if (typeof shown === 'boolean') return shown ? '1\n' : '0\n';
          // Of attributes with an errno only these can have one; -1 is a group id or a node.
          if (typeof shown === 'number') return shown < -1 ? shown : `${shown}\n`;
          return shown === '' && (name === 'engines' || name === 'work_queues') ? '' : `${shown}\n`;
        },
        ...(steps.length === 0
          ? {}
          : {
              store(text: string) {
                const input: Input = { text, value: 0 };
                for (const step of steps) {
                  const error = step(on, input);
                  if (error < 0) return error;
                }
                return text.length;
              },
            }),
      },
    ]);
}
