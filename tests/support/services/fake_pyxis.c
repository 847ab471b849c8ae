/* Stands in for pyxis: takes the container options that pyxis adds to srun and sbatch, and
   tells the job what it was given. */
#include <slurm/spank.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

SPANK_PLUGIN(fake_pyxis, 1)

static const char *names[] = {"container-image", "container-mounts", "container-workdir",
                              "container-name", "container-env"};
enum { COUNT = sizeof names / sizeof *names };
static char *values[COUNT];
static struct spank_option options[COUNT];

static int remember(int option, const char *argument, int remote) {
  (void)remote;
  values[option] = strdup(argument ? argument : "");
  return 0;
}

int slurm_spank_init(spank_t spank, int count, char **arguments) {
  (void)count;
  (void)arguments;
  for (int i = 0; i < COUNT; i++) {
    options[i] =
        (struct spank_option){(char *)names[i], "ARG", "(stand-in for pyxis)", 1, i, remember};
    if (spank_option_register(spank, &options[i]) != ESPANK_SUCCESS) return -1;
  }
  return 0;
}

int slurm_spank_task_init(spank_t spank, int count, char **arguments) {
  (void)count;
  (void)arguments;
  for (int i = 0; i < COUNT; i++) {
    char name[64];
    snprintf(name, sizeof name, "FAKE_PYXIS_%s", names[i] + strlen("container-"));
    if (values[i]) spank_setenv(spank, name, values[i], 1);
  }
  return 0;
}
