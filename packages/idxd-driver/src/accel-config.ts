/**
 * Configurations as accel-config keeps them in files: an array of devices with their groups, and in those the queues and engines. Loading
 * turns one into writes of attributes, in the file's order, as the tool does; saving reads them back. intel/idxd-config,
 * accel-config-load-config(1), accel-config-save-config(1).
 */

/** One write to sysfs. */
export interface AttributeWrite {
  readonly path: string;
  readonly value: string;
}
/** What a file asks for: the attributes, and then, for those who want it running, what to bind. */
export interface LoadedConfig {
  readonly writes: readonly AttributeWrite[];
  readonly enable: readonly AttributeWrite[];
}
export interface ConfigError {
  /** Which attribute of what, as 'wq0.1/size'; or the place in the file, as '[0]'. */
  readonly attribute: string;
  readonly why: string;
}
/** sysfs from the outside. */
export interface SysfsAccess {
  read(path: string): string | number;
  write(path: string, text: string): number;
  list(path: string): string[];
}

const DEVICES = '/sys/bus/dsa/devices';
const DRIVERS = '/sys/bus/dsa/drivers';

type Kind = 'device' | 'group' | 'wq' | 'engine';
type Value = 'number' | 'string';
/** What may be in a file, in the order in which it is saved: the type before the name, since a change of type clears it. Others are skipped. */
const attributes: { readonly [K in Kind]: { readonly [attribute: string]: Value } } = {
  device: { read_buffer_limit: 'number', event_log_size: 'number' },
  group: {
    read_buffers_reserved: 'number',
    use_read_buffer_limit: 'number',
    read_buffers_allowed: 'number',
    traffic_class_a: 'number',
    traffic_class_b: 'number',
    desc_progress_limit: 'number',
    batch_progress_limit: 'number',
  },
  wq: {
    mode: 'string',
    size: 'number',
    group_id: 'number',
    priority: 'number',
    block_on_fault: 'number',
    max_batch_size: 'number',
    max_transfer_size: 'number',
    type: 'string',
    name: 'string',
    driver_name: 'string',
    threshold: 'number',
    ats_disable: 'number',
    prs_disable: 'number',
    op_config: 'string',
  },
  engine: { group_id: 'number' },
};
/** Names of before 5.17. */
const renamed: { readonly [old: string]: string } = {
  token_limit: 'read_buffer_limit',
  tokens_reserved: 'read_buffers_reserved',
  tokens_allowed: 'read_buffers_allowed',
  use_token_limit: 'use_read_buffer_limit',
};
const names: { readonly [K in Kind]: RegExp } = {
  device: /^(?:dsa|iax)(\d+)$/,
  group: /^group(\d+)\.(\d+)$/,
  wq: /^wq(\d+)\.(\d+)$/,
  engine: /^engine(\d+)\.(\d+)$/,
};
/** Parts by the member of a group that holds them. */
const members = { grouped_workqueues: 'wq', grouped_engines: 'engine' } as const;

type Json = {
  readonly [key: string]: unknown;
  readonly dev?: unknown;
  readonly mode?: unknown;
  readonly type?: unknown;
  readonly driver_name?: unknown;
};
const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Reads a configuration file. `version` is the device's: traffic classes of versions up to 2.0 are fixed, and skipped. Nothing is written
 * anywhere: the answer is what to write, or the first thing in the file that cannot be.
 */
export function loadConfig(text: string, version = 0x100): LoadedConfig | ConfigError {
  const writes: AttributeWrite[] = [];
  const enable: AttributeWrite[] = [];
  const queues: AttributeWrite[] = [];
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch (error) {
    return { attribute: '', why: `no JSON: ${(error as Error).message}` };
  }
  const error = array(file, '', (element, at) => part(element, at, 'device', undefined));
  return error ?? { writes, enable: [...enable, ...queues] };

  function array(value: unknown, at: string, each: (element: unknown, at: string) => ConfigError | undefined): ConfigError | undefined {
    if (!Array.isArray(value)) return { attribute: at, why: 'an array is needed' };
    for (const [i, element] of value.entries()) {
      const error = each(element, `${at}[${i}]`);
      if (error) return error;
    }
    return undefined;
  }
  function part(value: unknown, at: string, kind: Kind, parent: string | undefined): ConfigError | undefined {
    if (!isObject(value)) return { attribute: at, why: 'an object is needed' };
    const { dev } = value;
    const found = typeof dev === 'string' ? names[kind].exec(dev) : null;
    if (typeof dev !== 'string' || !found) return { attribute: `${at}.dev`, why: `the name of a ${kind === 'device' ? 'dsa' : kind} is needed` };
    if (parent !== undefined && found[1] !== names.device.exec(parent)![1]) return { attribute: `${at}.dev`, why: `${dev} is not of ${parent}` };
    const device = parent ?? dev;
    if (kind === 'device') enable.push({ path: `${DRIVERS}/idxd/bind`, value: dev });
    for (const [key, given] of Object.entries(value)) {
      const error =
        kind === 'device' && key === 'groups'
          ? array(given, `${at}.groups`, (group, where) => part(group, where, 'group', device))
          : kind === 'group' && Object.hasOwn(members, key)
            ? array(given, `${at}.${key}`, (member, where) => part(member, where, members[key as keyof typeof members], device))
            : attribute(kind, dev, Object.hasOwn(renamed, key) ? renamed[key]! : key, given, value);
      if (error) return error;
    }
    if (kind === 'wq') {
      const driver = value.driver_name ?? (value.type === 'kernel' ? 'dmaengine' : value.type);
      if (typeof driver === 'string' && driver !== 'none' && /^\w+$/.test(driver)) queues.push({ path: `${DRIVERS}/${driver}/bind`, value: dev });
    }
    return undefined;
  }
  function attribute(kind: Kind, dev: string, key: string, given: unknown, all: Json): ConfigError | undefined {
    const wants = Object.hasOwn(attributes[kind], key) ? attributes[kind][key] : undefined;
    if (wants === undefined || given === null) return undefined;
    const value = typeof given === 'boolean' ? Number(given) : given;
    const name = `${dev}/${key}`;
    if (wants === 'number' && !Number.isSafeInteger(value)) return { attribute: name, why: 'a whole number is needed' };
    if (wants === 'string' && (typeof value !== 'string' || value === '')) return { attribute: name, why: 'a text is needed' };
    // What the tool does not write: no threshold for a dedicated queue, no use of a limit that is 0, no class that is fixed.
    if (key === 'threshold' && all.mode === 'dedicated') return undefined;
    if (key === 'use_read_buffer_limit' && value === 0) return undefined;
    if (key.startsWith('traffic_class') && (version <= 0x200 || value === -1)) return undefined;
    writes.push({ path: `${DEVICES}/${dev}/${key}`, value: String(value) });
    return undefined;
  }
}

/** Writes one after the other; stops at the first that is refused, and says which and its errno. */
export function applyConfig(sysfs: SysfsAccess, writes: readonly AttributeWrite[]): { readonly error: number; readonly attribute: string } {
  for (const { path, value } of writes) {
    const error = sysfs.write(path, value);
    if (error < 0) return { error, attribute: path.startsWith(DEVICES) ? path.slice(DEVICES.length + 1) : `${value} to ${path}` };
  }
  return { error: 0, attribute: '' };
}

/** The configuration of the devices that have one, as text for a file. */
export function saveConfig(sysfs: SysfsAccess): string {
  const all = sysfs.list(DEVICES);
  const show = (dev: string, key: string): string | undefined => {
    const text = sysfs.read(`${DEVICES}/${dev}/${key}`);
    return typeof text === 'number' ? undefined : text.replace(/\n$/, '');
  };
  const partsOf = (kind: Kind, id: string): string[] =>
    all.filter((dev) => names[kind].exec(dev)?.[1] === id).sort((a, b) => Number(names[kind].exec(a)![2]) - Number(names[kind].exec(b)![2]));
  const saved = (kind: Kind, dev: string): Json => {
    const out: Record<string, string | number> = { dev };
    for (const [key, type] of Object.entries(attributes[kind])) {
      const text = show(dev, key);
      // An empty name cannot be written back; a dedicated queue has no threshold.
      if (text === undefined || text === '' || (key === 'threshold' && (show(dev, 'mode') === 'dedicated' || text === '0'))) continue;
      out[key] = type === 'number' ? Number(text) : text;
    }
    return out;
  };
  const inGroup = (kind: Kind, id: string, group: string): Json[] =>
    partsOf(kind, id)
      .filter((dev) => show(dev, 'group_id') === group)
      .map((dev) => saved(kind, dev));
  const devices = all.flatMap((dev) => {
    const id = names.device.exec(dev)?.[1];
    if (id === undefined) return [];
    const groups = partsOf('group', id).map((name) => {
      const group = names.group.exec(name)![2]!;
      const wqs = inGroup('wq', id, group);
      const engines = inGroup('engine', id, group);
      return {
        ...saved('group', name),
        ...(wqs.length > 0 ? { grouped_workqueues: wqs } : {}),
        ...(engines.length > 0 ? { grouped_engines: engines } : {}),
      };
    });
    return groups.some((group) => 'grouped_workqueues' in group || 'grouped_engines' in group) ? [{ ...saved('device', dev), groups }] : [];
  });
  return `${JSON.stringify(devices, undefined, 2)}\n`;
}
