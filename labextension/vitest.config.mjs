import { defineConfig } from 'vitest/config';

export default defineConfig({
  esbuild: { jsx: 'transform' },
  resolve: { alias: { react: 'preact/compat', 'react-dom': 'preact/compat' } },
  test: { include: ['tests/**/*.test.ts'], environment: 'node' }
});
