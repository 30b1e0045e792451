import { defineConfig } from 'vitest/config';

/** Tests read the sources of every package of the workspace, so that no build is needed before them. */
export default defineConfig({
  resolve: { conditions: ['@siov/source'] },
  ssr: { resolve: { conditions: ['@siov/source'] } },
  test: { include: ['test/**/*.test.ts'], passWithNoTests: false, testTimeout: 60_000 },
});
