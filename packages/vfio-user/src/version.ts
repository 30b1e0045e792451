/** VERSION: what the two sides can do. vfio-user.rst, "VFIO_USER_VERSION". */
import { Default } from './spec/protocol.js';

export interface Capabilities {
  readonly maxMsgFds: number;
  readonly maxDataXferSize: number;
  readonly maxDmaMaps: number;
  readonly pageSizes: number;
  readonly twinSocket: boolean;
  readonly writeMultiple: boolean;
  /** Which of these the sender named: a reply names no others. */
  readonly named: ReadonlySet<string>;
}
/** No sender needs more, and libvfio-user takes no more. */
const MOST_FDS = 1024;

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);
const isCount = (value: unknown): value is number => typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 53;

/** The JSON of a version message with its NUL, or nothing at all. Undefined: it breaks a rule. Unknown names are ignored. */
export function readCapabilities(data: Uint8Array): Capabilities | undefined {
  let given: Record<string, unknown> = {};
  if (data.length > 0) {
    if (data[data.length - 1] !== 0) return undefined;
    try {
      const json: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data.subarray(0, data.length - 1)));
      if (!isObject(json)) return undefined;
      if (json.capabilities !== undefined) {
        if (!isObject(json.capabilities)) return undefined;
        given = json.capabilities;
      }
    } catch {
      return undefined;
    }
  }
  const rules: readonly (readonly [value: unknown, right: boolean])[] = [
    [given.max_msg_fds, isCount(given.max_msg_fds) && given.max_msg_fds <= MOST_FDS],
    [given.max_data_xfer_size, isCount(given.max_data_xfer_size)],
    [given.max_dma_maps, isCount(given.max_dma_maps)],
    [given.pgsizes, isCount(given.pgsizes)],
    [given.write_multiple, typeof given.write_multiple === 'boolean'],
    [given.twin_socket, isObject(given.twin_socket) && ['boolean', 'undefined'].includes(typeof given.twin_socket.supported)],
    [given.migration, isObject(given.migration) && (given.migration.pgsize === undefined || isPageSize(given.migration.pgsize))],
  ];
  if (rules.some(([value, right]) => value !== undefined && !right)) return undefined;
  const count = (name: string, otherwise: number): number => (given[name] as number | undefined) ?? otherwise;
  return {
    maxMsgFds: count('max_msg_fds', Default.maxMsgFds),
    maxDataXferSize: count('max_data_xfer_size', Default.maxDataXferSize),
    maxDmaMaps: count('max_dma_maps', Default.maxDmaMaps),
    pageSizes: count('pgsizes', Default.pageSizes),
    twinSocket: (given.twin_socket as { supported?: boolean } | undefined)?.supported === true,
    writeMultiple: given.write_multiple === true,
    named: new Set(Object.keys(given)),
  };
}
const isPageSize = (value: unknown): boolean => isCount(value) && value >= 4096 && Number.isInteger(Math.log2(value));

/** What the server can do, by the names of the JSON. */
export const offeredCapabilities = (migration: boolean): Readonly<Record<string, unknown>> => ({
  max_msg_fds: 16,
  max_data_xfer_size: 1_048_576,
  max_dma_maps: 65_535,
  pgsizes: 4096,
  write_multiple: true,
  ...(migration ? { migration: { pgsize: 4096 } } : {}),
});

/**
 * The JSON of the reply: of what is offered those that the client named, and the twin socket's index among the descriptors (-1: none). Shorter than
 * the request, since QEMU reads the reply into the request's buffer.
 */
export function chosen(client: Capabilities, offered: Readonly<Record<string, unknown>>, twin: number): string {
  // Two that every client needs to know, named or not: a client that did not name them reads its defaults.
  const always = client.named.size === 0 ? ['max_msg_fds', 'max_data_xfer_size'] : [];
  const names = Object.keys(offered).filter((name) => client.named.has(name) || always.includes(name));
  const capabilities: Record<string, unknown> = Object.fromEntries(names.map((name) => [name, offered[name]]));
  if (twin >= 0) capabilities.twin_socket = { supported: true, fd_index: twin };
  return JSON.stringify({ capabilities });
}
