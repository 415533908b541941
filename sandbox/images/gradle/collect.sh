#!/bin/sh
# Makes Debian's Gradle stand alone below $1: Debian's own looks into /usr/share/java for each library that one of its
# modules names, and for what those name in their manifests in turn.
set -eu
cp -rL /usr/share/gradle "$1"
# Some of Debian's links carry a wrong name.
for module in /usr/share/java/gradle-*-[0-9]*.jar; do
  name=${module##*/}
  if [ ! -e "$1/lib/$name" ] && [ ! -e "$1/lib/plugins/$name" ]; then cp -L "$module" "$1/lib/plugins/$name"; fi
done
for module in "$1"/lib/*.jar "$1"/lib/plugins/*.jar; do
  unzip -p "$module" '*-classpath.properties' 2>/dev/null | sed -n 's/^runtime=//p' | tr ',' '\n'
  echo
done | sort -u >/tmp/wanted
while [ -s /tmp/wanted ]; do
  : >/tmp/next
  while read -r jar; do
    name=${jar##*/}
    if [ -e "$1/lib/$name" ] || [ ! -e "/usr/share/java/$name" ]; then continue; fi
    cp -L "/usr/share/java/$name" "$1/lib/$name"
    # Some are looked up with their version.
    for versioned in "/usr/share/java/${name%.jar}"-[0-9]*.jar; do
      if [ -e "$versioned" ]; then ln -sf "$name" "$1/lib/${versioned##*/}"; fi
    done
    # Long manifest lines go on after a line end and a blank.
    unzip -p "$1/lib/$name" META-INF/MANIFEST.MF 2>/dev/null | tr -d '\r' | sed -e ':a' -e 'N' -e '$!ba' -e 's/\n //g' |
      sed -n 's/^Class-Path: *//p' | tr ' ' '\n' | grep '\.jar$' >>/tmp/next || :
  done </tmp/wanted
  mv /tmp/next /tmp/wanted
done

# Debian's Gradle takes itself for installed in /usr/share/gradle and /usr/share/java, by two texts in two classes
# (each stored with its length before it); here they name the folder it is copied to.
core="$1/lib/gradle-core-api-4.4.1.jar"
cd /tmp
for class in CurrentGradleInstallationLocator GradleInstallation; do
  file=org/gradle/internal/installation/$class.class
  unzip -qo "$core" "$file"
  perl -pi -e 's|\x00\x11/usr/share/gradle|\x00\x0b/opt/gradle|g; s|\x00\x0f/usr/share/java|\x00\x0f/opt/gradle/lib|g' "$file"
  grep -q /opt/gradle "$file"
  jar --update --file "$core" "$file"
done
