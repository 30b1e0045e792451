import { defineConfig } from 'vitest/config';

/** All packages in one run; each has the same settings of its own, so that it can be tested alone. */
export default defineConfig({ test: { projects: ['packages/*', 'tools/siov', 'tools/guest-lab', 'tools/exec', 'examples'] } });
