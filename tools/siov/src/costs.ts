/** `siov costs`: the cost table. */
import { defaultCosts } from '@siov/stack';
import { helpText, type Option, parseOptions } from './options.js';
import { table } from './text.js';

const options: readonly Option[] = [
  { name: 'json', help: 'as JSON, in the form that --costs of the other commands takes' },
  { name: 'help', help: 'this text' },
];
export function costs(argv: readonly string[]): number {
  const { values } = parseOptions(argv, options, 'costs');
  if (values.help)
    process.stdout.write(
      helpText(
        'siov costs [--json]',
        'Nanoseconds per event of the modelled machine, with range, source and confidence (A measured on such hardware ... D estimate).',
        options,
      ),
    );
  else if (values.json) process.stdout.write(`${JSON.stringify(defaultCosts, null, 2)}\n`);
  else
    process.stdout.write(
      `${table(
        Object.entries(defaultCosts).map(([name, r]) => [
          name,
          String(r.ns),
          'nsPerByte' in r ? String(r.nsPerByte) : '-',
          `${r.low}..${r.high}`,
          r.confidence,
          r.source,
        ]),
        ['event', 'ns', 'ns/byte', 'range', 'conf.', 'source'],
      )}\n`,
    );
  return 0;
}
