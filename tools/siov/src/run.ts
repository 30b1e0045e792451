/** `siov run FILE`: real bytes through uacce. */

import { Descriptor, descriptors, recordLayout } from '@siov/idxd-device/spec';
import { happening } from './happenings.js';
import { measure, type Report } from './model.js';
import { helpText, parseOptions } from './options.js';
import { allRight, printReports, verdict } from './print.js';
import { describeChoice, runChoice, runOptions } from './run-options.js';
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
  const report: Report = measure(
    () => buildUacce({ ...choice, neighbour: choice.happening === 'kill', ...(built ? { trace: built } : {}) }),
    choice.mode,
    {
      ...choice.workload,
      source,
      progress: progress('uacce', source.bytes),
      show: (descriptor, record) => {
        const layout = recordLayout(Descriptor.get.opcode(descriptor, 0));
        first.push(descriptors.show(descriptor, 0), layout.show(record, 0));
        firstJson.push({ descriptor: descriptors.json(descriptor, 0), record: layout.json(record, 0) });
      },
    },
    choice.costs,
    happening(choice),
  );
  source.close();
  await trace?.close();
  if (choice.json)
    process.stdout.write(`${JSON.stringify({ version: 1, file: choice.file, bytes: source.bytes, first: firstJson, reports: [report] }, null, 2)}\n`);
  else
    process.stdout.write(
      `${choice.file}: ${describeChoice(choice, source.bytes)}\n\nthe first to finish:\n${first.map((line) => `  ${line}\n`).join('')}\n${printReports([report])}\n\n${verdict([report])}\n`,
    );
  if (trace && !choice.json)
    process.stdout.write(`trace: ${trace.written} events in ${choice.tracePath}${trace.dropped ? ` (${trace.dropped} more left out)` : ''}\n`);
  return allRight([report]) ? 0 : 1;
}
