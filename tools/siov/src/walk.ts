/** A walk of the paging structures as a person draws it: each entry read, by field names, and where it leads. */
import * as vtd from '@siov/iommu/spec';
import { type AnyLayout, hex } from '@siov/layout';
import { PageEntry } from '@siov/layout/x86';
import type { Host } from '@siov/stack';

/** One entry that a walk reads. */
interface Step {
  readonly stage: 'first' | 'second';
  readonly level: number;
  /** Host physical address of the entry, and its index in its table. */
  readonly at: number;
  readonly index: number;
  readonly entry: Record<string, unknown>;
  /** Under nesting: the reads that found the table of this entry. */
  readonly table?: readonly Step[];
}
export interface Walk {
  readonly steps: readonly Step[];
  /** Second-stage reads of the first stage's result. */
  readonly result?: readonly Step[];
  /** Host physical address; undefined: refused. */
  readonly hpa?: number;
  /** Guest physical address, under nesting. */
  readonly gpa?: number;
  readonly why?: string;
  readonly reads: number;
}

const LARGE = 7;
const bit = (words: Uint32Array, at: number, n: number): boolean => ((words[at]! >>> n) & 1) === 1;
const span = (level: number): number => 4096 * 512 ** (level - 1);

/** Follows an address through the tables of a PASID entry (16 words), without setting any bit. */
export function walkOf(host: Host, pasid: Uint32Array, address: number): Walk {
  const { words } = host.ram;
  const known = (at: number): boolean => host.memory.regionOf(Math.floor(at / 4096))?.kind === 'ram';
  const { get, is } = vtd.PasidEntry;
  const kind = get.type(pasid, 0);
  let reads = 0;
  const stage = (
    name: Step['stage'],
    layout: AnyLayout,
    top: number,
    levels: number,
    input: number,
    present: (at: number) => boolean,
    through?: (address: number) => { steps: Step[]; to?: number; why?: string },
  ): { steps: Step[]; to?: number; why?: string } => {
    const steps: Step[] = [];
    let table = top;
    for (let level = levels; level >= 1; level--) {
      const nested = through?.(table);
      if (nested && nested.to === undefined) return { steps, why: `the ${name}-stage table at ${hex(table)}: ${nested.why}` };
      const base = nested?.to ?? table;
      if (!known(base)) return { steps, why: `no memory at the ${name}-stage table ${hex(base)}` };
      const index = Math.floor(input / span(level)) % 512;
      const at = base + index * 8;
      reads++;
      steps.push({ stage: name, level, at, index, entry: layout.json(words, at / 4), ...(nested ? { table: nested.steps } : {}) });
      if (!present(at / 4)) return { steps, why: `${name} stage, level ${level}: not present` };
      table = (words[at / 4 + 1]! & 0xf_ffff) * 2 ** 32 + ((words[at / 4]! & ~0xfff) >>> 0);
      if (level === 1 || bit(words, at / 4, LARGE)) return { steps, to: table - (table % span(level)) + (input % span(level)) };
    }
    return { steps, why: 'no leaf' };
  };
  const second = (input: number): { steps: Step[]; to?: number; why?: string } =>
    stage('second', vtd.SecondStageEntry, get.secondStage(pasid, 0), get.addressWidth(pasid, 0) + 2, input, (at) => (words[at]! & 3) !== 0);
  const done = (steps: Step[], outcome: { to?: number; why?: string }, more: Partial<Walk> = {}): Walk => ({
    steps,
    ...(outcome.to === undefined ? { why: outcome.why ?? '' } : { hpa: outcome.to }),
    ...more,
    reads,
  });
  if (kind === is.type.passThrough) return { steps: [], hpa: address, reads };
  if (kind === is.type.secondStage) {
    const outcome = second(address);
    return done(outcome.steps, outcome);
  }
  const nested = kind === is.type.nested;
  const levels = get.firstStageMode(pasid, 0) === is.firstStageMode.level5 ? 5 : 4;
  const first = stage('first', PageEntry, get.firstStage(pasid, 0), levels, address, (at) => bit(words, at, 0), nested ? second : undefined);
  if (!nested || first.to === undefined) return done(first.steps, first);
  const result = second(first.to);
  return done(first.steps, result, { gpa: first.to, result: result.steps });
}

/** As lines: indented by stage. */
export function drawWalk(walk: Walk, address: number): string[] {
  const line = ({ stage, level, at, index, entry }: Step, indent: string): string =>
    `${indent}${stage} stage, level ${level}, entry ${String(index).padStart(3)} at ${hex(at)}: ${Object.entries(entry)
      .map(([name, value]) => `${name}=${typeof value === 'number' && value > 9 ? hex(value) : value}`)
      .join(' ')}`;
  const lines: string[] = [];
  for (const step of walk.steps) {
    for (const inner of step.table ?? []) lines.push(line(inner, '    '));
    lines.push(line(step, '  '));
  }
  if (walk.gpa !== undefined) lines.push(`  -> guest physical ${hex(walk.gpa)}`);
  for (const inner of walk.result ?? []) lines.push(line(inner, '    '));
  lines.push(
    walk.hpa === undefined ? `  -> refused: ${walk.why}` : `  -> host physical ${hex(walk.hpa)}, ${walk.reads} entries read for ${hex(address)}`,
  );
  return lines;
}
