/**
 * gcc as an oracle: compiles a C program against the kernel's user headers and compares sizes and offsets with a layout's. Headers are the
 * machine's own (Debian package linux-libc-dev), or a newer unpacked tree named by SIOV_LINUX_HEADERS.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** What this needs of a layout of `@siov/layout`. The kit itself depends on no package, so that every package's tests can use it. */
interface AnyLayout {
  readonly name: string;
  readonly bytes: number;
  readonly fields: readonly { readonly name: string; readonly low: number }[];
}

const newer = process.env.SIOV_LINUX_HEADERS;
const roots = [...(newer ? [newer] : []), '/usr/include'];

/** Whether gcc and the header (such as 'linux/idxd.h') are here; else why not, to be printed by the test that is left out. */
export function kernelHeader(header: string): { readonly here: boolean; readonly why: string } {
  if (spawnSync('gcc', ['--version']).status !== 0) return { here: false, why: 'no gcc on this machine (Debian packages gcc and linux-libc-dev)' };
  return roots.some((root) => existsSync(join(root, header)))
    ? { here: true, why: '' }
    : { here: false, why: `no ${header} (Debian package linux-libc-dev, or a newer tree in SIOV_LINUX_HEADERS)` };
}

/** Evaluates C integer expressions with the header's types and constants. */
export function evaluate(headers: readonly string[], expressions: readonly string[]): number[] {
  const folder = mkdtempSync(join(tmpdir(), 'siov-gcc-'));
  const source = join(folder, 'probe.c');
  writeFileSync(
    source,
    `#include <stddef.h>\n#include <stdio.h>\n${headers.map((h) => `#include <${h}>`).join('\n')}
int main(void) {
${expressions.map((e) => `  printf("%llu\\n", (unsigned long long)(${e}));`).join('\n')}
  return 0;
}
`,
  );
  const binary = join(folder, 'probe');
  const include = newer
    ? ['-isystem', newer, ...(existsSync(join(newer, 'x86_64-linux-gnu')) ? ['-isystem', join(newer, 'x86_64-linux-gnu')] : [])]
    : [];
  execFileSync('gcc', [...include, '-O0', '-w', '-o', binary, source], { stdio: ['ignore', 'ignore', 'pipe'] });
  return execFileSync(binary, { encoding: 'utf8' }).trim().split('\n').map(Number);
}

/** What gcc and the layout say of the size and of each member's byte offset: equal when the layout is the header's. */
export function compareLayout(
  header: string,
  struct: string,
  layout: AnyLayout,
  /** Member name in C to field name of the layout. */
  members: Readonly<Record<string, string>>,
): { readonly gcc: Record<string, number>; readonly ours: Record<string, number> } {
  const names = Object.keys(members);
  const [size, ...offsets] = evaluate([header], [`sizeof(${struct})`, ...names.map((m) => `offsetof(${struct}, ${m})`)]);
  const field = (name: string): number => {
    const found = layout.fields.find((f) => f.name === name);
    if (!found) throw new TypeError(`compareLayout: ${layout.name} has no field ${name}`);
    return Math.floor(found.low / 8);
  };
  return {
    gcc: { size: size!, ...Object.fromEntries(names.map((m, i) => [m, offsets[i]!])) },
    ours: { size: layout.bytes, ...Object.fromEntries(names.map((m) => [m, field(members[m]!)])) },
  };
}
