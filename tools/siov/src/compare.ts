/** `siov compare FILE`: the same work natively through uacce and in a guest through the mdev, side by side. */
import { happening } from './happenings.js';
import { measure, type Ready, type Report } from './model.js';
import { helpText, parseOptions } from './options.js';
import { allRight, printReports, verdict } from './print.js';
import { describeChoice, runChoice, runOptions } from './run-options.js';
import { buildMdev, buildUacce, type StackChoice } from './stacks.js';
import { progress } from './text.js';
import { ChromeTrace } from './trace.js';

/** Bytes of the file that warm each model up. */
const WARM_UP = 16 << 20;

export async function compare(argv: readonly string[]): Promise<number> {
  const parsed = parseOptions(argv, runOptions, 'compare');
  if (parsed.values.help) {
    process.stdout.write(
      helpText(
        'siov compare [FILE] [options]',
        'Runs the same work natively through uacce and in a guest through an mdev, checks every result against a plain\ncomputation, and prints counts and times side by side. Only equal kinds of queues are compared: the mdev has dedicated\nqueues, so with --wq shared uacce is shown alone.',
        runOptions,
      ),
    );
    return 0;
  }
  const choice = runChoice(parsed, 'compare');
  const trace = choice.tracePath ? new ChromeTrace(choice.tracePath) : undefined;
  const builders: [string, (choice: StackChoice) => Ready][] = [
    ['uacce', buildUacce],
    ...(choice.mode === 'dedicated' ? [['mdev', buildMdev] as [string, typeof buildMdev]] : []),
  ];
  // The engine compiles hot code while it runs: a short run of each model first, so that the measured times compare like with like.
  for (const [, build] of [...builders, ...builders]) {
    const source = choice.open();
    measure(
      () => build(choice),
      choice.mode,
      {
        ...choice.workload,
        source: { bytes: Math.min(source.bytes, WARM_UP), read: (at, into) => source.read(at, into.subarray(0, Math.max(0, WARM_UP - at))) },
      },
      choice.costs,
    );
    source.close();
  }
  const reports: Report[] = [];
  let bytes = 0;
  for (const [i, [name, build]] of builders.entries()) {
    const source = choice.open();
    bytes = source.bytes;
    const sink = trace?.machine(i + 1, name);
    reports.push(
      measure(
        () => build({ ...choice, neighbour: choice.happening === 'kill', ...(sink ? { trace: sink } : {}) }),
        choice.mode,
        { ...choice.workload, source, progress: progress(name, source.bytes) },
        choice.costs,
        happening(choice),
      ),
    );
    source.close();
  }
  await trace?.close();
  if (choice.json) process.stdout.write(`${JSON.stringify({ version: 1, file: choice.file, bytes, reports }, null, 2)}\n`);
  else {
    process.stdout.write(`${choice.file}: ${describeChoice(choice, bytes)}\n\n${printReports(reports)}\n`);
    if (choice.mode === 'shared')
      process.stdout.write('\nthe mdev type 1dwq-v1 has a dedicated queue: nothing of its kind to compare with a shared one\n');
    process.stdout.write(`\n${verdict(reports)}\n`);
    if (trace)
      process.stdout.write(`trace: ${trace.written} events in ${choice.tracePath}${trace.dropped ? ` (${trace.dropped} more left out)` : ''}\n`);
  }
  return allRight(reports) ? 0 : 1;
}
