/** Messages by their fields' names, for people and for tools. */
import type { AnyLayout } from '@siov/layout';
import { errnoName } from '@siov/layout/uapi';
import { DeviceFeature, FeatureFlag, IrqInfoLayout, IrqSet, IrqSetFlag, RegionInfoLayout } from '@siov/vfio-mdev/uapi';
import {
  Command,
  commandNames,
  DeviceInfo,
  DmaAccess,
  DmaMap,
  DmaUnmap,
  Feature,
  FeatureMigration,
  FeatureState,
  featureNames,
  HEADER_BYTES,
  HeaderFlag,
  LoggingReport,
  LoggingStart,
  MigrationData,
  migrationStateNames,
  RegionAccess,
  RegionIoFds,
  Version,
  WriteMulti,
} from './spec/protocol.js';

export interface Decoded {
  readonly id: number;
  /** 'REGION_READ'; 'command 99' for one that is not known. */
  readonly command: string;
  readonly reply: boolean;
  /** Nobody answers it. */
  readonly noReply?: true;
  /** Of a reply: 'EINVAL'. */
  readonly error?: string;
  /** The payload's structure; numbers above 2^53 as text. */
  readonly fields: Readonly<Record<string, number | string>>;
  /** What follows the structure. */
  readonly data: Uint8Array;
  /** Bytes of the whole message. */
  readonly size: number;
}

interface Shape {
  readonly layout: AnyLayout;
  /** More after the structure, by what the structure says. */
  more?(fields: Readonly<Record<string, number | string>>): readonly AnyLayout[];
  name?(fields: Record<string, number | string>): void;
}
const bits = (value: number, names: Readonly<Record<string, number>>): string => {
  const known = Object.entries(names).filter(([, bit]) => (value & bit) === bit && bit !== 0);
  const rest = known.reduce((left, [, bit]) => left & ~bit, value);
  return [...known.map(([name]) => name), ...(rest ? [`0x${rest.toString(16)}`] : [])].join('|') || '0';
};
const { GET, SET, PROBE, MASK } = FeatureFlag;
const featureData: Readonly<Record<number, AnyLayout>> = {
  [Feature.MIGRATION]: FeatureMigration,
  [Feature.MIG_DEVICE_STATE]: FeatureState,
  [Feature.DMA_LOGGING_START]: LoggingStart,
  [Feature.DMA_LOGGING_REPORT]: LoggingReport,
};
const shapes: Readonly<Record<number, Shape>> = {
  [Command.VERSION]: { layout: Version },
  [Command.DMA_MAP]: { layout: DmaMap },
  [Command.DMA_UNMAP]: { layout: DmaUnmap },
  [Command.DEVICE_GET_INFO]: { layout: DeviceInfo },
  [Command.DEVICE_GET_REGION_INFO]: { layout: RegionInfoLayout },
  [Command.DEVICE_GET_REGION_IO_FDS]: { layout: RegionIoFds },
  [Command.DEVICE_GET_IRQ_INFO]: { layout: IrqInfoLayout },
  [Command.DEVICE_SET_IRQS]: {
    layout: IrqSet,
    name: (fields) => {
      fields.flags = bits(fields.flags as number, IrqSetFlag);
    },
  },
  [Command.REGION_READ]: { layout: RegionAccess },
  [Command.REGION_WRITE]: { layout: RegionAccess },
  [Command.DMA_READ]: { layout: DmaAccess },
  [Command.DMA_WRITE]: { layout: DmaAccess },
  [Command.REGION_WRITE_MULTI]: { layout: WriteMulti },
  [Command.DEVICE_FEATURE]: {
    layout: DeviceFeature,
    more: (fields) => [featureData[(fields.flags as number) & MASK]].filter((each) => each !== undefined),
    name: (fields) => {
      const flags = fields.flags as number;
      fields.feature = featureNames[flags & MASK] ?? flags & MASK;
      fields.flags = bits(flags & ~MASK, { GET, SET, PROBE });
      if (typeof fields.state === 'number') fields.state = migrationStateNames[fields.state] ?? fields.state;
    },
  },
  [Command.MIG_DATA_READ]: { layout: MigrationData },
  [Command.MIG_DATA_WRITE]: { layout: MigrationData },
};

/** A whole message. What is cut off is left out. */
export function decode(message: Uint8Array): Decoded {
  const view = new DataView(message.buffer, message.byteOffset, message.length);
  const u32 = (at: number): number => (at + 4 <= message.length ? view.getUint32(at, true) : 0);
  const code = u32(0) >>> 16;
  const flags = u32(8);
  const reply = (flags & HeaderFlag.TYPE) === HeaderFlag.REPLY;
  const fields: Record<string, number | string> = {};
  let at = HEADER_BYTES;
  const take = (layout: AnyLayout): void => {
    if (at + layout.bytes > message.length) return;
    const words = Uint32Array.from({ length: layout.bytes / 4 }, (_, i) => u32(at + i * 4));
    Object.assign(fields, joined(layout, words));
    at += layout.bytes;
  };
  const shape = shapes[code];
  if (shape) {
    take(shape.layout);
    for (const layout of at > HEADER_BYTES ? (shape.more?.(fields) ?? []) : []) take(layout);
    if (at > HEADER_BYTES) shape.name?.(fields);
  }
  return {
    id: u32(0) & 0xffff,
    command: commandNames[code] ?? `command ${code}`,
    reply,
    ...(flags & HeaderFlag.NO_REPLY ? { noReply: true as const } : {}),
    ...(flags & HeaderFlag.ERROR ? { error: errnoName(u32(12)) } : {}),
    fields,
    data: message.subarray(Math.min(at, message.length)),
    size: u32(4),
  };
}

/** Fields of a structure; two halves are one number. */
function joined(layout: AnyLayout, words: Uint32Array): Record<string, number | string> {
  const out: Record<string, number | string> = {};
  const fields = layout.json(words, 0);
  for (const [name, value] of Object.entries(fields)) {
    if (name.endsWith('High') || name === 'reserved' || name === 'padding') continue;
    if (!name.endsWith('Low')) {
      out[name] = value;
      continue;
    }
    const stem = name.slice(0, -3);
    const whole = BigInt(value) + (BigInt(fields[`${stem}High`] ?? 0) << 32n);
    out[stem] = whole < 2n ** 53n ? Number(whole) : `0x${whole.toString(16)}`;
  }
  return out;
}

const TEXT_BYTES = 24;
/** One line: 'REGION_READ 17 region=0 offset=0x90 count=4'. */
export function describe(message: Uint8Array): string {
  const { id, command, reply, noReply, error, fields, data } = decode(message);
  const parts = [command, `${id}${reply ? ' reply' : ''}${noReply ? ' posted' : ''}`];
  if (error !== undefined) parts.push(error);
  for (const [name, value] of Object.entries(fields))
    parts.push(`${name}=${typeof value === 'number' && value > 9 ? `0x${value.toString(16)}` : value}`);
  if (data.length > 0) {
    const json = command === 'VERSION';
    const hex = [...data.subarray(0, TEXT_BYTES)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    parts.push(
      json ? new TextDecoder().decode(data).replace(/\0$/, '') : `data=${hex}${data.length > TEXT_BYTES ? `... (${data.length} bytes)` : ''}`,
    );
  }
  return parts.join(' ');
}
