/* Round trips of 32 bytes there and 40 bytes back over UNIX sockets. Arguments: how many; then 'threads' or 'processes' for the two ends alone, or the
   path of a vfio-user server, whose register 0 is read 8 bytes at a time, and how many further connections to hold open. Prints trips per second. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST = 32, REPLY = 40 };
static long trips;
static int ends[2];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}
static void take(int fd, void *to, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    ssize_t n = read(fd, (char *)to + done, bytes - done);
    if (n <= 0) exit(2);
    done += n;
  }
}
static void give(int fd, const void *from, size_t bytes) {
  if (write(fd, from, bytes) != (ssize_t)bytes) exit(3);
}
static void *echo(void *argument) {
  char room[64] = {0};
  for (long i = 0; i < trips; i++) {
    take(ends[1], room, REQUEST);
    give(ends[1], room, REPLY);
  }
  return argument;
}
static void measure(int fd, const void *request) {
  char room[64];
  double start = now();
  for (long i = 0; i < trips; i++) {
    give(fd, request, REQUEST);
    take(fd, room, REPLY);
  }
  printf("%.0f\n", trips / (now() - start));
}
static int join(const char *path) {
  const char *json = "{\"capabilities\":{\"max_msg_fds\":16}}";
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  struct { uint32_t header[4], version; char text[64]; } hello = {{1 << 16 | 1, 0, 0, 0}, 0, {0}};
  uint32_t header[4];
  char rest[512];
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  if (connect(fd, (void *)&address, sizeof address)) exit(1);
  strcpy(hello.text, json);
  hello.header[1] = 20 + strlen(json) + 1;
  give(fd, &hello, hello.header[1]);
  take(fd, header, sizeof header);
  take(fd, rest, header[1] - sizeof header);
  return fd;
}
int main(int count, char **words) {
  if (count < 3) return 1;
  trips = atol(words[1]);
  uint32_t request[8] = {9 << 16 | 2, REQUEST, 0, 0, 0, 0, 0, 8};
  if (!strcmp(words[2], "threads") || !strcmp(words[2], "processes")) {
    pthread_t thread;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) return 1;
    if (!strcmp(words[2], "processes")) {
      if (fork() == 0) _exit(echo(0) != 0);
    } else if (pthread_create(&thread, 0, echo, 0)) return 1;
    measure(ends[0], request);
    return 0;
  }
  for (int i = 3; i < count; i++) join(words[i]);
  measure(join(words[2]), request);
  return 0;
}
