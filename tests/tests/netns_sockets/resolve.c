/* Prints the addresses of a name in the order in which the C library would have them tried. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>

int main(int count, char **words)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	char text[INET6_ADDRSTRLEN];

	if (count != 2 || getaddrinfo(words[1], NULL, &hints, &found))
		return 1;
	for (struct addrinfo *one = found; one; one = one->ai_next) {
		const void *address = one->ai_family == AF_INET
			? (void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
			: (void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
		puts(inet_ntop(one->ai_family, address, text, sizeof(text)));
	}
	return 0;
}
