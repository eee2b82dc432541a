/* A name server for one process, by LD_PRELOAD: the name executors.test stands for the IPv4 addresses in NAMES_FILE, one to a line, which a test may change at any
   time. A file that begins with "!" is a name server that is away. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static lookup real;
    if (!real) real = (lookup)dlsym(RTLD_NEXT, "getaddrinfo");
    if (!node || strcmp(node, "executors.test")) return real(node, service, hints, found);
    FILE *file = fopen(getenv("NAMES_FILE"), "r");
    char line[64];
    struct addrinfo *first = NULL, **end = &first;
    if (!file) return EAI_AGAIN;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] == '!') break;
        if (line[0] && real(line, service, hints, end) == 0)
            while (*end) end = &(*end)->ai_next;
    }
    fclose(file);
    *found = first;
    return first ? 0 : EAI_AGAIN;
}
