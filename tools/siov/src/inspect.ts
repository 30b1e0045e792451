/** `siov inspect [PART]`: configuration space, registers and tables by field names, of a machine on which a process has opened a queue. */

import { sprDsa } from '@siov/idxd-device';
import * as vtd from '@siov/iommu/spec';
import { type AnyLayout, hex } from '@siov/layout';
import { config, lspciDump, type PciFunction } from '@siov/pci-core';
import { defaultCosts, type Host } from '@siov/stack';
import { helpText, integerOf, type Option, oneOfWords, parseOptions, UsageError } from './options.js';
import { deviceOption, devices } from './run-options.js';
import { buildMdev, buildUacce } from './stacks.js';
import { drawWalk, walkOf } from './walk.js';

const { Ats, Header, Msix, Pasid, Pcie, PowerManagement, Pri, SiovDvsec } = config;
const parts = ['pf', 'vdev', 'iommu'] as const;
const options: readonly Option[] = [
  { name: 'lspci', help: "print the functions' configuration space as `lspci -F` reads it" },
  {
    name: 'requester',
    value: 'RID',
    help: 'iommu: the function to follow through the tables, as a number',
    default: '8',
    parse: integerOf(0, 0xffff),
  },
  { name: 'pasid', value: 'PASID', help: "iommu: the address space to follow (default: the open queue's)", parse: integerOf(0, 0xf_ffff) },
  { name: 'address', value: 'ADDRESS', help: 'iommu: walk this address of it, entry by entry, as 0x7fff12345000', parse: parseAddress },
  { name: 'guest', help: "iommu: follow a guest's address space, which is nested" },
  deviceOption,
  { name: 'json', help: 'print JSON for machines' },
  { name: 'help', help: 'this text' },
];

/** A number below 2^57, decimal or 0x. */
function parseAddress(text: string, bad: (why: string) => never): number {
  const value = Number(text);
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text) || !(value < 2 ** 53)) bad(`'${text}' is not an address`);
  return value;
}

export function inspect(argv: readonly string[]): number {
  const { words, values } = parseOptions(argv, options, 'inspect');
  if (values.help) {
    process.stdout.write(
      helpText(
        'siov inspect [pf|vdev|iommu] [options]',
        'Shows a machine in which a process (or a guest, for vdev) has an open work queue: without PART all of them.',
        options,
      ),
    );
    return 0;
  }
  if (words.length > 1) throw new UsageError(`one part at a time: 'siov inspect ${words[0]}'`);
  const part =
    words[0] === undefined
      ? undefined
      : oneOfWords(...parts)(words[0], (why) => {
          throw new UsageError(why);
        });
  const device = devices[(values.device as string) ?? sprDsa.name]!;
  const choice = { mode: 'dedicated' as const, wqSize: 16, device, blockOnFault: false, ramBytes: 256 << 20, costs: defaultCosts };
  const guest = part === 'vdev' || part === undefined || values.lspci === true || values.guest === true ? buildMdev(choice) : undefined;
  const ready = guest ?? buildUacce(choice);
  // A process with an open queue, so that there is something in the tables.
  let pasid = -1;
  const task = ready.kernel.user.spawn({ step: () => 'wait' }, 'inspected');
  ready.open(task);
  pasid = task.mm.pasid;
  const memory = task.alloc(4096);
  const { host } = ready;
  if (values.lspci) {
    process.stdout.write(
      lspciDump([
        host.devices[0]!.function,
        ...(guest ? [{ requesterId: 0x10, configRead: (o: number, w: number) => guest.vdev.function.configRead(o, w) }] : []),
      ]),
    );
    return 0;
  }
  const shown: Record<string, unknown> = {};
  if (part === 'pf' || part === undefined)
    shown.pf = { configuration: configuration(host.devices[0]!.function), registers: host.devices[0]!.describe() };
  if (guest && (part === 'vdev' || part === undefined))
    shown.vdev = {
      configuration: configuration(guest.vdev.function),
      registers: guest.vdev.describe(),
      'guest PASID to host PASID': Object.fromEntries([...guest.vdev.hostPasids].map(([g, h]) => [g < 0 ? 'default' : g, h])),
    };
  if (part === 'iommu' || part === undefined) {
    const hostPasid = guest ? (guest.vdev.hostPasids.get(pasid) ?? pasid) : pasid;
    const followed = iommu(host, (values.requester as number) ?? host.devices[0]!.function.requesterId, (values.pasid as number) ?? hostPasid);
    shown.iommu = { ...followed.steps, 'a page of the process': hex(memory) };
    const address = values.address as number | undefined;
    if (address !== undefined) {
      if (!followed.entry) throw new UsageError('--address: there is no PASID entry to walk from; see --requester and --pasid');
      const walk = walkOf(host, followed.entry, address);
      if (values.json) shown.walk = walk;
      else {
        process.stdout.write(`${outline(shown)}\n${drawWalk(walk, address).join('\n')}\n`);
        return 0;
      }
    }
  }
  process.stdout.write(values.json ? `${JSON.stringify({ version: 1, ...shown }, null, 2)}\n` : `${outline(shown)}\n`);
  return 0;
}

const configuration = (fn: PciFunction): Record<string, unknown> => {
  const show = (layout: AnyLayout, at: number): Record<string, unknown> | undefined =>
    at || layout === Header ? layout.json(fn.words, at / 4) : undefined;
  const { at } = fn;
  const all = {
    header: show(Header, 0),
    msix: show(Msix, at.msix),
    pcie: show(Pcie, at.pcie),
    powerManagement: show(PowerManagement, at.powerManagement),
    ats: show(Ats, at.ats),
    pri: show(Pri, at.pri),
    pasid: show(Pasid, at.pasid),
    siov: show(SiovDvsec, at.siov),
  };
  return Object.fromEntries(Object.entries(all).filter(([, v]) => v !== undefined));
};

/** Follows (requester, PASID) from the root table register to the paging structures, as the unit does. */
function iommu(host: Host, requester: number, pasid: number): { readonly steps: Record<string, unknown>; readonly entry?: Uint32Array } {
  const { memory } = host;
  const words = host.ram.words;
  const at = (address: number): number => address / 4;
  const known = (address: number): boolean => memory.regionOf(address / 4096)?.kind === 'ram';
  const register = new Uint32Array(2);
  const read = (offset: number): Uint32Array => {
    register[0] = host.unit.read(offset, 4);
    register[1] = host.unit.read(offset + 4, 4);
    return register;
  };
  const steps: Record<string, unknown> = {
    registers: unitRegisters(host),
    following: `requester ${hex(requester)}, PASID ${pasid}`,
  };
  const root = vtd.RootTable.get.address(read(vtd.registers.rootTable.offset), 0);
  const rootEntry = root + (requester >>> 8) * 16 + (requester & 0x80 ? 8 : 0);
  steps[`root entry at ${hex(rootEntry)}`] = vtd.RootEntry.json(words, at(rootEntry));
  const contextTable = vtd.RootEntry.get.contextTable(words, at(rootEntry));
  if (!vtd.RootEntry.get.present(words, at(rootEntry)) || !known(contextTable)) return { steps };
  const context = contextTable + (requester & 0x7f) * 32;
  steps[`context entry at ${hex(context)}`] = vtd.ContextEntry.json(words, at(context));
  const directory = vtd.ContextEntry.get.directory(words, at(context));
  if (!vtd.ContextEntry.get.present(words, at(context)) || !known(directory) || pasid < 0) return { steps };
  const directoryEntry = directory + (pasid >>> 6) * 8;
  steps[`PASID directory entry at ${hex(directoryEntry)}`] = vtd.PasidDirectoryEntry.json(words, at(directoryEntry));
  const tableAddress = vtd.PasidDirectoryEntry.get.table(words, at(directoryEntry));
  if (!vtd.PasidDirectoryEntry.get.present(words, at(directoryEntry)) || !known(tableAddress)) return { steps };
  const entry = tableAddress + (pasid & 63) * 64;
  steps[`PASID entry at ${hex(entry)}`] = vtd.PasidEntry.json(words, at(entry));
  return { steps, entry: words.slice(at(entry), at(entry) + 16) };
}

/** The unit's registers, read as software reads them. */
function unitRegisters(host: Host): Record<string, unknown> {
  const words = new Uint32Array(vtd.REGISTER_BYTES / 4);
  for (const { offset, layout } of Object.values(vtd.registers))
    for (let i = 0; i < layout.bytes; i += 4) words[(offset + i) / 4] = host.unit.read(offset + i, 4);
  return Object.fromEntries(Object.entries(vtd.registers).map(([name, { offset, layout }]) => [name, layout.json(words, offset / 4)]));
}

/** Nested objects as indented lines; flat ones on one line. */
function outline(value: unknown, indent = ''): string {
  if (typeof value !== 'object' || value === null) return `${indent}${value}`;
  return Object.entries(value)
    .map(([name, v]) => {
      if (typeof v !== 'object' || v === null) return `${indent}${name}: ${v}`;
      const flat = Object.values(v).every((x) => typeof x !== 'object');
      return flat && Object.keys(v).length > 0
        ? `${indent}${name}: ${Object.entries(v)
            .map(([k, x]) => `${k}=${typeof x === 'number' && x > 9 ? hex(x) : x}`)
            .join(' ')}`
        : `${indent}${name}\n${outline(v, `${indent}  `)}`;
    })
    .join('\n');
}
