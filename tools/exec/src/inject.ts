/**
 * Faults on demand, so that error paths of programs can be tried: the n-th descriptor of an address space ends with a status, an error of the
 * device, a halt, ENQCMD that must retry. What happens depends on the seed and on each program's own descriptors alone, so a run can be repeated.
 */

/** Which reset a halted device asks for. */
const RESETS = ['software', 'functionLevel', 'warm', 'cold'] as const;
type Reset = (typeof RESETS)[number];

interface Rule {
  readonly kind: 'status' | 'swerror' | 'halt' | 'retry';
  /** Status or error code; for a halt the index of its reset. */
  readonly value: number;
  /** The first that it happens to, counted from 1, and every so many after that (0: none); or how many in a hundred. */
  readonly at: number;
  readonly every: number;
  readonly percent: number;
}

/** Words for help. */
export const injectionHelp =
  'status=0x83@5 (the 5th of each process), status=0x03@10+7 (and each 7th after), retry%20, swerror=0x12@9, halt=software@40';

/** Rules with commas between; what is wrong with them, in words. */
export function parseInjections(text: string): readonly Rule[] | string {
  const rules: Rule[] = [];
  for (const part of text.split(',')) {
    const [, kind, , value, at, , every, percent] = /^(status|swerror|halt|retry)(=([\w]+))?(?:@(\d+)(\+(\d+))?|%(\d+))$/.exec(part.trim()) ?? [];
    if (kind === undefined) return `'${part}' is no rule; some are ${injectionHelp}`;
    const rule = { kind: kind as Rule['kind'], value: 0, at: Number(at ?? 0), every: Number(every ?? 0), percent: Number(percent ?? 0) };
    if ((kind === 'retry') !== (value === undefined)) return `'${part}': ${kind} ${kind === 'retry' ? 'has no value' : 'needs one'}`;
    if (kind === 'halt') rule.value = (RESETS as readonly string[]).indexOf(value!);
    else if (kind !== 'retry') rule.value = Number(value);
    if (kind === 'halt' && rule.value < 0) return `'${part}': a halt asks for ${RESETS.join(', ')}`;
    if ((kind === 'status' || kind === 'swerror') && !(rule.value > 0 && rule.value < (kind === 'status' ? 0x100 : 0x80)))
      return `'${part}': a ${kind === 'status' ? 'status is 1 to 0xff' : 'software error is 1 to 0x7f'}`;
    if (percent === undefined && rule.at < 1) return `'${part}': descriptors are counted from 1`;
    if (rule.percent > 100) return `'${part}': at most 100 in a hundred`;
    rules.push(rule);
  }
  return rules;
}

/** What happens to one descriptor. */
export interface Verdict {
  /** Its completion status, instead of being carried out; 0: it is. */
  status: number;
  softwareError: number;
  halt: Reset | undefined;
}

/** The rules as they stand for one address space. */
export class Injector {
  readonly #rules: readonly Rule[];
  readonly #random: Uint32Array;
  #descriptors = 0;
  #enqueues = 0;
  readonly #verdict: Verdict = { status: 0, softwareError: 0, halt: undefined };

  /** `number`: of the address space, in the order in which they came. */
  constructor(rules: readonly Rule[], seed: number, number: number) {
    this.#rules = rules;
    this.#random = Uint32Array.from(rules, (_, i) => (seed * 0x9e37_79b1 + number * 0x85eb_ca6b + i * 0xc2b2_ae35) >>> 0 || 1);
  }

  /** Whether an ENQCMD is told to retry. */
  refuses(): boolean {
    this.#enqueues++;
    return this.#rules.reduce((any, rule, i) => (rule.kind === 'retry' && this.#applies(rule, i, this.#enqueues)) || any, false);
  }
  /** Of the next descriptor that the device would get. Valid until the next call. */
  next(): Verdict {
    const verdict = this.#verdict;
    verdict.status = verdict.softwareError = 0;
    verdict.halt = undefined;
    this.#descriptors++;
    this.#rules.forEach((rule, i) => {
      if (rule.kind === 'retry' || !this.#applies(rule, i, this.#descriptors)) return;
      if (rule.kind === 'status') verdict.status = rule.value;
      else if (rule.kind === 'swerror') verdict.softwareError = rule.value;
      else verdict.halt = RESETS[rule.value]!;
    });
    return verdict;
  }

  #applies({ at, every, percent }: Rule, index: number, n: number): boolean {
    if (at > 0) return n === at || (every > 0 && n > at && (n - at) % every === 0);
    let x = this.#random[index]!;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random[index] = x;
    return (x >>> 8) % 100 < percent;
  }
}
export type Injections = { readonly rules: readonly Rule[]; readonly seed: number };
