/** READMEs whose examples run. */
import { readFileSync } from 'node:fs';

/**
 * Runs `example/example.ts` of the package whose test file is `testUrl` (import.meta.url) after proving that its README shows exactly that
 * file, and returns what it logged, line by line.
 */
export async function runReadmeExample(testUrl: string): Promise<string[]> {
  const file = readFileSync(new URL('../example/example.ts', testUrl), 'utf8').trim();
  const readme = readFileSync(new URL('../README.md', testUrl), 'utf8');
  if (!readme.includes(`\`\`\`ts\n${file}\n\`\`\``)) throw new Error('the README does not show example/example.ts as it is');
  const lines: string[] = [];
  const { log } = console;
  console.log = (...values: unknown[]) => void lines.push(values.map(String).join(' '));
  try {
    await import(new URL('../example/example.ts', testUrl).href);
  } finally {
    console.log = log;
  }
  return lines;
}
