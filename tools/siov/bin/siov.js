#!/usr/bin/env node
// A committed file that imports the build: package managers link it at install, before anything is built.
import { existsSync } from 'node:fs';

const main = new URL('../dist/main.js', import.meta.url);
if (existsSync(main)) await import(main.href);
else {
  process.stderr.write("siov: this checkout is not built yet: 'pnpm build:js' builds it, 'npm start' builds and runs it\n");
  process.exitCode = 2;
}
