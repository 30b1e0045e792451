/** Where Debian's packages come from: this machine's own choice. */
import { readdirSync, readFileSync } from 'node:fs';

/** The first Debian archive that a file of apt's sources names, in either form (sources.list(5)). */
export function mirrorIn(text: string): string | undefined {
  for (const line of text.split('\n')) {
    if (/^\s*#/.test(line)) continue;
    const found = /https?:\/\/\S+?\/debian\/?(?=\s|$)/.exec(line);
    if (found) return found[0].replace(/\/$/, '');
  }
  return undefined;
}

/** The archive of the environment (SIOV_DEBIAN_MIRROR), else that of apt's sources. */
export function mirror(env: NodeJS.ProcessEnv = process.env, etc = '/etc/apt'): string | undefined {
  if (env.SIOV_DEBIAN_MIRROR) return env.SIOV_DEBIAN_MIRROR;
  const files = [`${etc}/sources.list`];
  try {
    for (const name of readdirSync(`${etc}/sources.list.d`).sort()) if (/\.(list|sources)$/.test(name)) files.push(`${etc}/sources.list.d/${name}`);
  } catch {
    // no folder, no sources in it
  }
  for (const file of files) {
    try {
      const found = mirrorIn(readFileSync(file, 'utf8'));
      if (found) return found;
    } catch {
      // not there, or not ours to read
    }
  }
  return undefined;
}
