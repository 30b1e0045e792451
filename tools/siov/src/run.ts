/** `siov run FILE`: real bytes through uacce. */

import { closeSync, openSync, writeSync } from 'node:fs';
import { Descriptor, descriptors, recordLayout } from '@siov/idxd-device/spec';
import type { OpenQueue, WorkloadOptions } from '@siov/stack';
import { Analytics, shown } from './analytics.js';
import { analyticsCost, inflated } from './analytics-ops.js';
import { happening } from './happenings.js';
import { measure, type Report } from './model.js';
import { helpText, parseOptions, UsageError } from './options.js';
import { allRight, printReports, verdict } from './print.js';
import { describeChoice, isAnalytics, type RunChoice, runChoice, runOptions, versionOf } from './run-options.js';
import { buildUacce } from './stacks.js';
import { progress } from './text.js';
import { ChromeTrace } from './trace.js';

export async function run(argv: readonly string[]): Promise<number> {
  const parsed = parseOptions(argv, runOptions, 'run');
  if (parsed.values.help) {
    process.stdout.write(
      helpText(
        'siov run [FILE] [options]',
        'Cuts FILE into descriptors, submits them through uacce, checks every result, prints counts and times.',
        runOptions,
      ),
    );
    return 0;
  }
  const choice = runChoice(parsed, 'run');
  const trace = choice.tracePath ? new ChromeTrace(choice.tracePath) : undefined;
  const source = choice.open();
  const built = trace?.machine(1, 'uacce');
  const first: string[] = [];
  const firstJson: object[] = [];
  const coded = choice.analytics && new Coded(choice, choice.analytics);
  const report: Report = measure(
    () => buildUacce({ ...choice, neighbour: choice.happening === 'kill', ...(built ? { trace: built } : {}) }),
    choice.mode,
    {
      ...choice.workload,
      source,
      progress: progress('uacce', source.bytes),
      show: (descriptor, record) => {
        const { lines, json } = isAnalytics(choice.device) ? shown(descriptor, record) : shownOfDsa(descriptor, record);
        first.push(...lines);
        firstJson.push(json);
      },
    },
    choice.costs,
    happening(choice),
    coded?.make,
    choice.analytics && analyticsCost(choice.analytics.op),
  );
  const verdictOfFile = coded?.end();
  source.close();
  await trace?.close();
  if (choice.json)
    process.stdout.write(
      `${JSON.stringify({ version: 1, file: choice.file, bytes: source.bytes, first: firstJson, reports: [report], ...(verdictOfFile ? { output: verdictOfFile } : {}) }, null, 2)}\n`,
    );
  else
    process.stdout.write(
      `${choice.file}: ${describeChoice(choice, source.bytes)}\n\nthe first to finish:\n${first.map((line) => `  ${line}\n`).join('')}\n${printReports([report])}\n\n${verdictOfFile && !verdictOfFile.right ? '' : `${verdict([report])}\n`}${verdictOfFile?.says ? `${verdictOfFile.says}\n` : ''}`,
    );
  if (trace && !choice.json)
    process.stdout.write(`trace: ${trace.written} events in ${choice.tracePath}${trace.dropped ? ` (${trace.dropped} more left out)` : ''}\n`);
  return allRight([report]) && verdictOfFile?.right !== false ? 0 : 1;
}

function shownOfDsa(descriptor: Uint32Array, record: Uint32Array): { readonly lines: readonly string[]; readonly json: object } {
  const layout = recordLayout(Descriptor.get.opcode(descriptor, 0));
  return {
    lines: [descriptors.show(descriptor, 0), layout.show(record, 0)],
    json: { descriptor: descriptors.json(descriptor, 0), record: layout.json(record, 0) },
  };
}

/** Files up to this size are judged as a whole too. */
const WHOLE = 256 << 20;
/** What an analytics accelerator makes of a file: written to another, and judged as one. */
class Coded {
  readonly #choice: RunChoice;
  readonly #o: NonNullable<RunChoice['analytics']>;
  readonly #pieces: Uint8Array[] = [];
  readonly #fd: number | undefined;
  #bytes = 0;
  #program: Analytics | undefined;

  constructor(choice: RunChoice, options: NonNullable<RunChoice['analytics']>) {
    this.#choice = choice;
    this.#o = options;
    if (options.output === undefined) return;
    try {
      this.#fd = openSync(options.output, 'w');
    } catch (error) {
      throw new UsageError(`--output: '${options.output}' cannot be written (${(error as NodeJS.ErrnoException).code})`);
    }
  }
  readonly make = (options: WorkloadOptions, open: OpenQueue): Analytics => {
    const version = versionOf(this.#choice.device);
    const output = (bytes: Uint8Array): void => {
      this.#bytes += bytes.length;
      if (this.#fd !== undefined) writeSync(this.#fd, bytes);
      if (this.#bytes <= WHOLE) this.#pieces.push(bytes);
    };
    return (this.#program = new Analytics({ ...options, op: this.#o.op, version, output }, open));
  };
  /** Once the program has ended. */
  end(): { readonly right: boolean; readonly bytes: number; readonly says: string } {
    if (this.#fd !== undefined) closeSync(this.#fd);
    const { op, output: path } = this.#o;
    const { failure, behind } = this.#program!;
    const where = path === undefined ? '' : `, in ${path}`;
    const answer = (right: boolean, says: string) => ({ right, bytes: this.#bytes, says });
    if (failure !== undefined) {
      const hint =
        failure === 'distanceRange' ? ' (a match begins further back than the history: --history 32K, or a stream made with a window of 4 KiB)' : '';
      return answer(false, `not all of the file: ${failure}${hint}`);
    }
    const made = `${this.#bytes} bytes made of it${where}`;
    if (op !== 'compress' && op !== 'decompress') return answer(true, this.#bytes > 0 ? made : '');
    const source = this.#choice.open();
    const file = new Uint8Array(Math.min(source.bytes, WHOLE + 1));
    source.read(0, file);
    source.close();
    if (file.length > WHOLE || this.#bytes > WHOLE) return answer(true, `${made}; too much to be judged as one`);
    const ours = Buffer.concat(this.#pieces);
    const plain = op === 'compress' ? inflated(ours, true, file.length) : inflated(file.subarray(0, file.length - behind), true, WHOLE);
    const right = typeof plain !== 'string' && Buffer.compare(plain, op === 'compress' ? file : ours) === 0;
    if (!right) return answer(false, `WRONG: ${typeof plain === 'string' ? `zlib says '${plain}'` : 'zlib has other bytes'}`);
    const share = (100 * (op === 'compress' ? ours.length / file.length : file.length / Math.max(1, ours.length))).toFixed(1);
    const rest = behind > 0 ? `; ${behind} bytes behind its end are none of it` : '';
    return answer(
      true,
      op === 'compress'
        ? `${made} (${share} %): zlib inflates it to the file`
        : `${made} (of which the file is ${share} %): as zlib inflates it${rest}`,
    );
  }
}
